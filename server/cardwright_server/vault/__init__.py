"""The vault: master keys, CA keys and the archive's keys, behind typed operations in a process of their own."""
