"""Card contracts, version 1: programs, answers, errors, inventory, plan."""
