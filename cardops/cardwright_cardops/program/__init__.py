"""Card programs without I/O: items, groups and batches, and what runs them."""
