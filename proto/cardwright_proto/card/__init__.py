"""Contracts about cards."""
