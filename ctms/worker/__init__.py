"""The background service as a process: lanes, jobs, schedule and metrics; `ctms.sync` knows the other systems."""
