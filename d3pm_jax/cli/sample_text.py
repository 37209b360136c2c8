"""Samples of text for d3pm sample: what is known of them, and how they are printed."""

import re
from typing import Any

import numpy as np

from d3pm_jax.data import tokenizers
from d3pm_jax.errors import UserError, one_line
from d3pm_jax.measure.exact import mask_of
from d3pm_jax.measure.samples import Given
from d3pm_jax.runs.run import Run

MASK = re.compile(r"\[MASK:([1-9][0-9]{0,8})\]")
LIKE_MASK = re.compile(r"\[mask\b[^]]*]?", re.IGNORECASE)
OPTIONS = ("prompt", "infill", "length")
CLAMPED = (
    "known characters stand among noise that the network was trained without: the rest follows them only "
    "roughly, see docs/text.md; exact for Absorbing with see_time=False"
)


def check(args: Any, run: Run) -> None:
    """Raises UserError where options of texts are given for other data, or a length that was not trained."""
    kind = run.parts.description.kind
    for name in OPTIONS:
        if getattr(args, name) is not None and kind != "text":
            raise UserError(
                f"--{name}: it is of text, the data of this run is of kind {kind!r}; leave it out"
            )
    longest = run.parts.description.shape[0]
    if args.length is not None and args.length > longest:
        raise UserError(f"--length {args.length}: the run has texts of at most {longest}; take fewer")


def given(args: Any, run: Run) -> Given | None:
    """Returns what every sample has, if anything.

    Raises:
        UserError: it is longer than a sample, has what the text of the run does not have, or no gap.
    """
    option = "prompt" if args.prompt is not None else "infill"
    text = getattr(args, option)
    if text is None:
        return None
    length, symbols = args.length or run.parts.description.shape[0], run.parts.description.symbols or ()
    literal = [text] if option == "prompt" else _around_gaps(text, length)
    gaps = sum(map(int, literal[1::2]))
    if gaps > length:
        raise UserError(f"--infill has gaps of {gaps} tokens, a sample {length}: shorten it")
    x0, known = [np.zeros(0, np.int32)], [np.zeros(0, bool)]
    for i, piece in enumerate(literal):
        try:
            tokens = np.zeros(int(piece), np.int32) if i % 2 else tokenizers.matched(piece, symbols)
        except tokenizers.DatasetError as error:
            raise UserError(f"--{option}: {error}") from error
        x0.append(tokens)
        known.append(np.full(len(tokens), not i % 2))
    n = sum(map(len, x0))
    if n > length:
        raise UserError(f"--{option} has {n} tokens, a sample {length}: shorten it")
    rest = length - n
    return Given(np.pad(np.concatenate(x0), (0, rest)), np.pad(np.concatenate(known), (0, rest)))


def _around_gaps(text: str, length: int) -> list[str]:
    """Cuts a text at its gaps; every second piece is how many tokens a gap has."""
    pieces = MASK.split(text)
    odd = next(filter(None, map(LIKE_MASK.search, pieces[::2])), None)
    if odd or len(pieces) == 1:
        what = f"has {odd[0]!r}" if odd else f"{one_line(repr(text))} has no gap"
        raise UserError(f"--infill {what}: write [MASK:N] for a gap of N tokens, N in 1..{length}")
    return pieces


def told(args: Any) -> list[str]:
    """Returns which of --prompt and --infill is given."""
    return [name for name in ("prompt", "infill") if getattr(args, name) is not None]


def suffix(args: Any) -> str:
    """Returns what names of files get where something is known, which is in the .json beside them."""
    return "".join(f"_{name}" for name in told(args))


def printed(args: Any, run: Run, samples: np.ndarray) -> list[str]:
    """Returns the texts as they are, each below its number; above all, whether what is known is clamped."""
    exact = args.prompt is args.infill is None or mask_of(run.parts) is not None
    texts = (run.parts.description.text(x) for x in samples)
    lines = (line for i, text in enumerate(texts) for line in (f"sample {i}", text))
    return [*([] if exact else [CLAMPED]), *lines]
