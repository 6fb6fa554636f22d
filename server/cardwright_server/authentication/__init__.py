"""Who calls and how they proved it, which calls they may make, and the methods by which persons prove who they are."""
