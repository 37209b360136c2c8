"""Takes one training step in eager PyTorch, and has what a loop of them needs."""

from torch_ref.training.step import adamw, average, learning_rate, train_step

__all__ = ["adamw", "average", "learning_rate", "train_step"]
