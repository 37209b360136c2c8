"""Names the data sets of a config."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Data:
    """Names a TFDS image data set."""

    name: str
    """"digits", or any TFDS image data set prepared as ArrayRecord"""
    dir: str | None = None
    """where data sets lie; by default the directory of TFDS"""
    train_split: str = "train"
    """what to train on"""
    test_split: str = "test"
    """what to evaluate on"""
