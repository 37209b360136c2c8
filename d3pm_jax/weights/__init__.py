"""Weights under the names and in the layouts of other programs, one module for each."""
