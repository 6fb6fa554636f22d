"""The local contract: what the workstation daemon offers to programs of its user."""
