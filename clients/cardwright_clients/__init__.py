"""What people and programs use: the command line, later the SDK, the desktop agent and the portals."""
