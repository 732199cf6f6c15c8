"""The history of subscriptions and of deleted contacts, which triggers of the database record."""
