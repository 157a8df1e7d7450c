"""The uses of each package, which its own environment imports."""
