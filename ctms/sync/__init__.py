"""Backends and deletion handlers: calls, states, circuit breaker, resync and verification."""
