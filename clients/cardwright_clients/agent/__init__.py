"""The desktop agent: notifications of what is due, with *Start* and *Later*."""
