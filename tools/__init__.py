"""Maintainers' tools: `python -m tools.NAME`. They are not part of the service."""
