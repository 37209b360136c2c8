"""Runs the `d3pm` commands: one file for each, with a dataclass of its options and `execute`."""
