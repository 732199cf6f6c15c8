"""Benchmarks of the service against a baseline app that runs the same SQL: `python -m benchmarks.api`."""
