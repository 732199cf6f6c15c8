"""Telemetry: health checks, logs and metrics, without personal data beyond ids."""
