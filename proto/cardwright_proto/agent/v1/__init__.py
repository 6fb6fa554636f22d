"""Agent contracts, version 1."""
