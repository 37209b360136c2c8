"""Defines the error that a user can mend."""


class UserError(Exception):
    """Its message is one line that names the value and the cure; commands print it and exit with status 1."""
