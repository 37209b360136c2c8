"""Figures of arrays and a predict function, without a disk: the bound, and what it has to beat."""
