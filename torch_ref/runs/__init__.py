"""Reads in PyTorch what a run leaves on disk: `presampled` noise, `exported` networks, their `processes`."""

from torch_ref.runs import exported, presampled, processes

__all__ = ["exported", "presampled", "processes"]
