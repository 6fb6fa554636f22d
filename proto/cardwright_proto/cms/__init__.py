"""Contracts of the card management server."""
