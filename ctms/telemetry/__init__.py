"""What operators see: health, logs, metrics. Nothing of a person beyond ids."""
