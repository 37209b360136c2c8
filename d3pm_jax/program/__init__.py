"""Holds the rooms that runs are made of, which no page imports."""
