"""The service as a whole: real processes, real packages, many clients, restarts and kills. Slower than the rest."""
