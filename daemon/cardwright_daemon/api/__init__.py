"""The local gRPC API: thin servicers, one for each service of the contract."""
