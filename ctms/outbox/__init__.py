"""Pending changes for other systems, stored in the transaction that makes them; `ctms.sync` pushes them."""
