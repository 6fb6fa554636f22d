"""The contracts between the parts: protobuf definitions and their generated modules."""
