"""Chooses the examples that a run is trained on, and those that it is evaluated on meanwhile."""

from typing import NamedTuple

from d3pm_jax.config import Config, open_examples, open_training_examples
from d3pm_jax.data import Part, Source
from d3pm_jax.errors import UserError


class Sources(NamedTuple):
    """Holds the examples of a run: those that it is trained on, and those that it is evaluated on."""

    train: Source
    test: Source
    valid: Source | None  # evaluated on during training; None for none


def open_sources(config: Config) -> Sources:
    """Opens the data of a run that is trained.

    Raises:
        UserError: the data cannot be read, or has too few examples.
    """
    train = take_training_examples(config, open_training_examples(config.data))
    return Sources(train, open_examples(config.data, "test"), open_validation(config))


def take_training_examples(config: Config, source: Source) -> Source:
    """Returns a train split without the last `train.held_out` examples.

    Raises:
        UserError: too few are left for a batch.
    """
    held_out = config.train.held_out
    if not held_out:
        return source
    remaining = len(source) - held_out
    if remaining < config.train.batch_size:
        raise UserError(
            f"train.held_out = {held_out} leaves {max(0, remaining)} of {len(source)} examples, less than a "
            f"batch of {config.train.batch_size}: hold back fewer"
        )
    return Part(source, 0, remaining)


def open_validation(config: Config) -> Source | None:
    """Opens the examples that are evaluated on during training, or returns None if `train.eval_every` is 0.

    These are the held-out examples of the train split, or the "valid" split of the data.

    Raises:
        UserError: the data cannot be read, or `train.eval_every` has nothing to evaluate on.
    """
    if not config.train.eval_every:
        return None
    if config.train.held_out:
        source = open_examples(config.data, "train")
        return Part(source, len(source) - config.train.held_out, len(source))
    if config.data.has_valid:
        return open_examples(config.data, "valid")
    raise UserError(
        f"train.eval_every = {config.train.eval_every}, but the data has no valid split: name one, or in "
        f"a new run hold back examples, as --train.held-out 1000, or leave it out"
    )
