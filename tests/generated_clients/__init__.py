"""The clients that generators make of the OpenAPI document, type-checked and driven against the served app."""
