"""Ways to reach a card: PC/SC, in process, and a redacted trace of either."""
