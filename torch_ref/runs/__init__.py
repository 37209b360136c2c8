"""Reads in PyTorch what a run leaves on disk: `presampled` noise."""

from torch_ref.runs import presampled

__all__ = ["presampled"]
