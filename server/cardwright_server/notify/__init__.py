"""Domain events and what is made of them; the first consumer is mail."""
