"""Exempt existing objects from garbage collection: forked processes then copy less memory."""

import gc

gc.collect()
gc.freeze()
