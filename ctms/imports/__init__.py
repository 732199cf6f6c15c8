"""Imports of contacts from files: read, mapped to items of batches, written by several processes, reported."""
