"""Tests of `ctms.history`."""
