"""The installable clients, `clients/`, driven against a stub server and against the served app."""
