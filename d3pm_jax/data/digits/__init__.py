"""Holds the bundled 8x8 digits as a TFDS data set."""
