"""Suppressed addresses: they must not be stored again. Only keyed fingerprints of them are kept."""
