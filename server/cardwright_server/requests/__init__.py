"""Requests: what was asked for, by whom approved, when it ends, and whether it was carried out."""
