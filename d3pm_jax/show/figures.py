"""Writes figures of Matplotlib."""

from pathlib import Path
from typing import Any

from d3pm_jax.files import replacing


def plain(text: str) -> str:
    """Returns what Matplotlib draws as this text: "$" begins no formula, and what is no UTF-8 is "?"."""
    return text.replace("$", r"\$").encode("utf-8", "replace").decode()


def save_figure(path: Path, figure: Any) -> None:
    """Writes a figure of Matplotlib as a PNG file."""
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120, format="png")
