"""Runs the `d3pm` commands: one file for each, with `add_arguments` and `execute`."""
