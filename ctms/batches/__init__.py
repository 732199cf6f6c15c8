"""Writes of many contacts at once: items are validated, decided from what is stored, and written set-based."""
