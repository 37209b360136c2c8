"""Takes one training step in eager PyTorch, and has what a loop of them needs."""

from torch_ref.training.step import Metrics, adamw, average, clip_by_global_norm, learning_rate, train_step

__all__ = ["Metrics", "adamw", "average", "clip_by_global_norm", "learning_rate", "train_step"]
