"""Escrow: private keys for encryption that the server makes and keeps, and every way in which one leaves again."""
