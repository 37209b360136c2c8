"""Calls of the data package, for the tests of each of its modules."""

import itertools
import time

import pytest

from d3pm_jax.data import DatasetError, train_batches


def take(source, number, **kwargs):
    """The first `number` batches, as a list."""
    settings = {"batch_size": 100, "seed": 3, "num_categories": 17} | kwargs
    return list(itertools.islice(train_batches(source, **settings), number))


def failure(function, *args, **kwargs):
    """The message of the DatasetError that a call raises: one line, within 10 seconds."""
    began = time.monotonic()
    with pytest.raises(DatasetError) as caught:
        function(*args, **kwargs)
    assert time.monotonic() - began < 10
    message = str(caught.value)
    assert "\n" not in message
    return message
