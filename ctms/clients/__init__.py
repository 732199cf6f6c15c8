"""Who may call: API clients, their secrets and tokens, their roles and permissions."""
