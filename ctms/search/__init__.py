"""Search: conditions on contacts as SQL, the indexes that serve them, and pages of what matches."""
