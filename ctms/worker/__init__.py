"""The background service: it tells other systems what the outbox holds."""
