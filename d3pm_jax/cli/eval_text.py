"""Figures of texts for d3pm eval: by character, by n-grams and compressors, and by the chain rule."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from d3pm_jax.cli import results
from d3pm_jax.data import read_batch
from d3pm_jax.errors import UserError
from d3pm_jax.evaluation import ngrams, texts
from d3pm_jax.evaluation.bound import with_error
from d3pm_jax.likelihood import bits_per_dim
from d3pm_jax.machine.terminal import Terminal
from d3pm_jax.measure import exact
from d3pm_jax.runs.run import Run

CONTEXT = 5  # tokens that an n-gram looks at
LARGEST = 10_000_000  # tokens of a training text that is counted and compressed
Examples = Mapping[str, np.ndarray]


def check(args: Any, run: Run) -> None:
    """Raises UserError where a chain rule is asked of a network that has none."""
    if args.chain_rule is not None and exact.mask_of(run.parts) is None:
        raise UserError(
            f"--chain-rule {args.chain_rule} is for a network that fills in masks and sees no time: "
            f"Absorbing with an extra mask (head.forbid), and Transformer(see_time=False); leave it out"
        )


def figures(run: Run, examples: Examples, result: Mapping[str, Any]) -> dict[str, float]:
    """Returns a bound as perplexity per token, and in bits per character; nothing for other data.

    By character only where each token is a character, or a byte: what others stand for in the text is not
    always what they are written as.
    """
    if run.parts.description.kind != "text":
        return {}
    with np.errstate(over="ignore"):  # of a network that rules the data out, or nearly
        found = {"perplexity": float(np.exp2(result["bits_per_dim"]))}
    if any(len(symbol) != 1 for symbol in run.parts.description.symbols or ()):
        return found
    nats, characters = result["nats"] * len(examples["x"]), len(_text(run, examples))
    return {"bits_per_char": nats / characters / np.log(2)} | found


def baselines(run: Run, examples: Examples) -> dict[str, float]:
    """Returns bits per token of the examples by n-grams and compressors of a training text of some size."""
    description, source = run.parts.description, run.config.data.open("train")
    n = len(source) * description.shape[0]
    if n > LARGEST:
        print(f"no n-grams and compressors: the train split has up to {n:,} tokens, more than {LARGEST:,}")
        return {}
    train = read_batch(source, run.parts.categories, None, description)
    before, tokens = (x["x"][_real(x)] for x in (train, examples))
    nats = ngrams.ngram_nats(before, tokens, run.parts.categories, CONTEXT).mean()
    compressed = texts.compressed_bits(*(_text(run, x).encode() for x in (train, examples)))
    named = {f"n-gram of {CONTEXT} tokens before each": bits_per_dim(float(nats), 1)}
    return named | {name: bits / len(tokens) for name, bits in compressed.items()}


def execute(args: Any, run: Run, examples: Examples) -> None:
    """Computes and prints the exact likelihood by the chain rule, if it is asked for."""
    if args.chain_rule is None:
        return
    few = {name: x[: args.chain_rule] for name, x in examples.items()}
    with Terminal("example", 2 * len(few["x"])).shown() as terminal:
        found = exact.likelihood(run.parts, few, args.batch_size, args.seed, terminal.advance)
    path = args.workdir / f"exact{results.suffix(args, 'step', 'chain_rule', 'seed')}.json"
    results.write_json(path, found, ("step", "examples"))
    for name in ("left to right", "in random orders"):
        bits = with_error(found[name]["bits_per_dim"], found[name]["standard_error"], 3)
        print(f"  exact, {name}, {len(few['x'])} examples: {bits} bits/dim")


def _text(run: Run, examples: Examples) -> str:
    """Returns windows as the one text that they are, documents with padding as lines."""
    description, x = run.parts.description, examples["x"]
    if "weight" not in examples:
        return description.text(x.ravel())
    return "\n".join(description.text(row[w]) for row, w in zip(x, _real(examples), strict=True))


def _real(examples: Examples) -> np.ndarray:
    """Says which elements are no padding."""
    weight = examples.get("weight")
    return np.ones(examples["x"].shape, bool) if weight is None else weight > 0
