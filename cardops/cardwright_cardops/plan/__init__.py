"""Desired state: device policy, inventory, plan, and the steps that lead from one to the other."""
