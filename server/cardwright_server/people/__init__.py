"""Persons, groups, operators; where they come from (our store, a directory), and what certificates say of them."""
