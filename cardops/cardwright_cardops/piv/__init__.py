"""The PIV card application of SP 800-73-5: commands, key references, objects."""
