"""Addresses that must not come back, kept as keyed fingerprints only."""
