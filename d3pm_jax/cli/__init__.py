"""The `d3pm` command."""
