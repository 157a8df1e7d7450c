"""Comparison of two programs: the costs of a change, and their causes."""
