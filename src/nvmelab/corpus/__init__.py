"""Known bugs and odd-but-legal behaviours, by name."""
