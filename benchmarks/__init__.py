"""How fast the service is, beside a bare app that runs the same SQL: `python -m benchmarks.api`."""
