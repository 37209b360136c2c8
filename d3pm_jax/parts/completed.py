"""Completes a config by its data: what is built is built from the result, and nothing asks again."""

import dataclasses

import numpy as np

from d3pm_jax.config import Config, from_data
from d3pm_jax.config.checks import check_fields
from d3pm_jax.config.data import open_examples
from d3pm_jax.data import Description, count_categories
from d3pm_jax.errors import UserError, one_line
from d3pm_jax.kinds import Kind, make_kind
from d3pm_jax.parts import splits


@dataclasses.dataclass(frozen=True)
class Completed:
    """Holds a config that was checked, with the numbers of its data, and what its data is."""

    config: Config
    description: Description  # of the data
    kind: Kind  # of the data


def complete(config: Config, description: Description) -> Completed:
    """Completes a config, which was checked, with the numbers of its data in place of every "data".

    Raises:
        UserError: the description is none, there is no kind for it, or the data cannot be read.
    """
    # The kind may refuse the data, and should do so before all of the data is counted.
    try:
        check_fields("data.describe()", description)
        kind = make_kind(description, config.data)
    except (ValueError, TypeError) as error:
        raise UserError(one_line(error, 1000)) from error

    def count_training_categories() -> np.ndarray:
        examples = splits.take_training_examples(config, open_examples(config.data, "train"))
        return count_categories(examples, description.categories)  # [categories]

    if from_data.needs_data(config):
        config = from_data.fill(config, description.categories, count_training_categories)
    return Completed(config, description, kind)
