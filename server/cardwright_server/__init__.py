"""The card management server."""
