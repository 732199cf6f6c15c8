"""Lists of addresses: read as other systems export them, loaded, worked through in batches, reported."""
