"""Driver, device, platform and memory as one stepped system, and who goes next."""
