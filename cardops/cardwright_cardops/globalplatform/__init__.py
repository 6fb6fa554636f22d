"""GlobalPlatform: SCP03 secure channels (Card Specification v2.3 Amendment D), PUT KEY, diversified keys."""
