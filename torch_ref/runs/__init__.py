"""Reads in PyTorch what a run leaves on disk: `presampled` noise, `exported` networks."""

from torch_ref.runs import exported, presampled

__all__ = ["exported", "presampled"]
