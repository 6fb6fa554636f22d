"""Vendor administration beyond SP 800-73-5. What a card has is found by asking it, never by its version."""
