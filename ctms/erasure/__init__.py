"""Deletion and opt-out of one contact or a million, with records without personal data."""
