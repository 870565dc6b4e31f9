"""nvmelab says why an NVMe queue hangs, and whose fault it is."""

__version__ = "0.1.0"
