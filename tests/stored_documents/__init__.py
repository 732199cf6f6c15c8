"""Tests of stored documents: after all writers, and with all interleavings, a valid one is the rendered one."""
