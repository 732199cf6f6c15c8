"""The background service as a process: lanes, jobs, schedule and metrics; `ctms.sync` calls the other systems."""
