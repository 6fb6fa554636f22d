"""The workstation daemon."""
