"""How fast the service is, beside a baseline app that runs the same SQL: `python -m benchmarks.api`."""
