"""Card sessions: the server drives one card through one workstation."""
