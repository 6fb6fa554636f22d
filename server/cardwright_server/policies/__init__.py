"""Device policies: versioned documents that say what must be on a device, and what may be done to it."""
