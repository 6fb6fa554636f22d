"""The way to the server: the protocol that the daemon uses, and what stands there without a server."""
