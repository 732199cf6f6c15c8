"""Clients generated from the OpenAPI document, type-checked and run against the served app."""
