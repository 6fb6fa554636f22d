"""The gRPC edge: one thin servicer for each service of the contract."""
