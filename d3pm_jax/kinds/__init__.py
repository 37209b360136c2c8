"""Defines kinds of data, a class for each: how their examples are shown, named and measured."""

from d3pm_jax.extras import require

require(__name__, "PIL", "matplotlib", "platformdirs")

from d3pm_jax.config import Data
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError, wrong_return
from d3pm_jax.kinds import blocks as blocks
from d3pm_jax.kinds.array import ArrayKind
from d3pm_jax.kinds.base import (
    SHOWN_CHAINS as SHOWN_CHAINS,
    STATES as STATES,
    Batch,
    Chains,
    Kind,
    Measured,
    QualityTable,
    Reference,
    Samples,
    Split,
    States,
)
from d3pm_jax.kinds.image import ImageKind
from d3pm_jax.kinds.maze import MazeKind
from d3pm_jax.kinds.plane import CheckerboardKind, EightGaussiansKind, PlaneKind, SpiralsKind
from d3pm_jax.kinds.table import TableKind
from d3pm_jax.kinds.text import TextKind

__all__ = [
    "ArrayKind",
    "Batch",
    "Chains",
    "ImageKind",
    "Kind",
    "MazeKind",
    "Measured",
    "PlaneKind",
    "QualityTable",
    "Reference",
    "Samples",
    "Split",
    "States",
    "TableKind",
    "TextKind",
    "make_kind",
]

SHIPPED = (
    ImageKind,
    TextKind,
    ArrayKind,
    TableKind,
    MazeKind,
    SpiralsKind,
    EightGaussiansKind,
    CheckerboardKind,
)


def make_kind(description: Description, data: Data | None = None) -> Kind:
    """Makes the kind that a description of data names.

    Args:
        description: of the data.
        data: of the config; a class of your own may have a kind of your own.

    Raises:
        UserError: there is no kind of this name, its `sample_files` are none, or the description is not one
            of it.
    """
    classes: dict[str, type[Kind]] = {cls.name: cls for cls in SHIPPED}
    users_class = None if data is None else data.own_kind()
    if data is not None and users_class is not None:
        if not isinstance(users_class, type):
            raise wrong_return(data.own_kind, users_class, "the class of a Kind, or None")
        if not hasattr(users_class, "name"):
            raise UserError(
                f"{users_class.__name__} has no name: write name = the kind that describe() gives"
            )
        classes[users_class.name] = users_class

    if description.kind not in classes:
        words = f"kind = {description.kind!r}: it must be one of {', '.join(classes)}"
        raise UserError(f"{words}; own_kind() of your Data class names one of your own")

    kind = classes[description.kind](description)
    if kind.sample_files not in ("pictures", "texts", None):
        raise UserError(
            f"{type(kind).__name__}.sample_files = {kind.sample_files!r}: it must be 'pictures', 'texts' or "
            "None"
        )
    kind.check()
    return kind
