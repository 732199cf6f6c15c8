"""API clients: their secrets and tokens, their roles and permissions."""
