"""What the specification says about what was seen."""
