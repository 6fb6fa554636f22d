"""What the vault does, one module for each family. Each function judges, counts, acts; ``core`` writes the audit."""
