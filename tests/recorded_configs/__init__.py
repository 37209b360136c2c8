"""A config file for each kind of run, each of which trains in seconds, for `tests.recorded`."""
