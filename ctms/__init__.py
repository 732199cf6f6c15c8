"""CTMS, a contact management service."""
