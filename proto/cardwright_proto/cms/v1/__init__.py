"""Contracts of the card management server, version 1: card sessions."""
