"""Lists of addresses: read, loaded, worked through in batches, reported."""
