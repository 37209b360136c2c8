"""The `d3pm` command: one file for each command, with `add_arguments` and `execute`."""
