"""Cards, readers and workstations that exist only in memory and that strangers accept as real."""
