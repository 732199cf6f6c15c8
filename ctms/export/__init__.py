"""Exports: all contacts, or those that match a condition, as files of one snapshot of the database."""
