"""Writes examples as their kind wants to be seen: pictures, lines of text, arrays."""

from pathlib import Path

import numpy as np

from d3pm_jax.data import Description
from d3pm_jax.files import write_npy, write_text
from d3pm_jax.show.images import save_grid, to_rgb

MASKED = "_"  # in text, what no symbol stands for
SUFFIX = {"image": ".png", "text": ".txt", "array": ".npy"}


def save_examples(path: Path, x: np.ndarray, description: Description, caption: str = "") -> Path:
    """Writes examples int [N, *S] to a file.

    Args:
        path: of the file, without its suffix.
        x: the examples; a category that the data lacks is a mask.
        description: of the data.
        caption: a line of text above pictures.

    Returns:
        The path with the suffix of the kind: a grid of pictures, one line for each text, or the array.
    """
    path = path.with_name(path.name + SUFFIX[description.kind])
    if description.kind == "image":
        save_grid(path, to_rgb(x, description.categories), round(len(x) ** 0.5), caption)
    elif description.kind == "text":
        write_text(path, "".join(line + "\n" for line in lines(x, description)))
    else:
        write_npy(path, x)
    return path


def lines(x: np.ndarray, description: Description) -> list[str]:
    """Returns texts int [N, L] as strings, line breaks within them escaped; -1 is padding, and nothing."""
    found = (description.text(row, MASKED) for row in x)
    return [text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r") for text in found]
