"""The tests mirror `ctms/`. They use a real PostgreSQL, the embedded one, and roll back their changes."""
