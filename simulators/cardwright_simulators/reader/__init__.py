"""Readers that virtual cards go into: in process, and the card side of vpcd under a real pcscd."""
