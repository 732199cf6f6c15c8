"""Backends and deletion handlers: what they are called with, how they are doing, and how their copies are repaired."""
