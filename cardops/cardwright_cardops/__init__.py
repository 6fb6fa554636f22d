"""Everything about cards: the commands, the objects, the plan. Nothing about gRPC, databases or people."""
