"""Devices: stock and lots, their machine, holds, replacement, numbers, and what is due."""
