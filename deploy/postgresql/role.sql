-- The settings that CTMS asks for on its connections. PgBouncer cannot pass them on, so the role has them.
ALTER ROLE ctms SET statement_timeout = '20s';
ALTER ROLE ctms SET lock_timeout = '10s';
ALTER ROLE ctms SET idle_in_transaction_session_timeout = '60s';
ALTER ROLE ctms SET timezone = 'UTC';
ALTER ROLE ctms SET jit = off;
