"""Deletion and opt-out of one contact or a million, with records that name nobody."""
