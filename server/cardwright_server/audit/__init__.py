"""What happened: entries that commit with the change, sealed into signed blocks, verified offline."""
