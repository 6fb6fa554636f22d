"""The workstation daemon: one for each user; readers, cards, prompts, relay, and the local API."""
