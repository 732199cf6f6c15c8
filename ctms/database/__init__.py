"""The database: the engine, the connection pool, the embedded server, and migrations."""
