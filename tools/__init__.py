"""What maintainers run: `python -m tools.NAME`. Nothing here is part of the service."""
