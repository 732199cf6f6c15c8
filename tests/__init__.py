"""The tests mirror `ctms/`. They talk to a real PostgreSQL, the embedded one, and roll back what they do."""
