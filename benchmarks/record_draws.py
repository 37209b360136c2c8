"""Records what samplers draw, to the last bit, and compares two such records.

    python benchmarks/record_draws.py write FILE.npz [--only WORDS..] [--float64]
    python benchmarks/record_draws.py compare OLD.npz NEW.npz

Every named sampler is run on every family of processes that takes it, plain and with whatever may go with
it: known places, noised ones, blocks, passes, guidance, editing, candidates, particles, watching, a reverse
step of one's own. What is refused is recorded as its text. So a change of how samplers are built shows in
what they draw: write a record before and after it. `XLA_FLAGS` decides how it is compiled; the tests have
flags of their own, in conftest.py.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from d3pm_jax import posteriors, processes
from d3pm_jax.sampling import Denoiser, Known, PartWay, Sampler, best_of, guidance, named, run, sample, steer
from d3pm_jax.sampling.noise import per_example
from d3pm_jax.sampling.transitions import OwnReverse

K = 4
T = 6
BETA = np.array([0.1, 0.15, 0.2, 0.3, 0.4, 0.6])
GAMMA = np.array([0.05, 0.1, 0.2, 0.2, 0.3, 0.5])
PI = np.array([0.1, 0.2, 0.3, 0.4])
SHAPE = (3, 4)
KEYS = (0, 1, 2)
BELIEFS = ("d3pm", "official", "leave_one_out", "denoiser")

FAMILIES = {
    "uniform": lambda: processes.uniform(BETA, K),
    "marginal": lambda: processes.marginal(BETA, PI),
    "absorbing": lambda: processes.absorbing(BETA, K, K - 1),
    "masked": lambda: processes.masked(processes.marginal(BETA, PI[:3] / PI[:3].sum()), GAMMA),
    "gaussian": lambda: processes.gaussian(BETA / 10, K),
}
# Numbers at which a sampler does what it does on few places and steps.
FIELDS = {
    "ddim": {"c": 0.7},
    "psi": {"kappa": 0.6},
    "remdm_cap": {"eta": 0.3},
    "remdm_rescale": {"eta": 0.4},
    "remdm_loop": {"rows": 5, "alpha": 0.55},
    "margin": {"noise": 0.2},
    "speculative": {"drafts": 2},
    "llada": {"rows": 3},
    "p2": {"rows": 5, "eta": 1.4},
    "maskgit": {"rows": 3, "choice_temperature": 1.5},
    "fast_dllm_threshold": {"threshold": 0.5},
    "fast_dllm_factor": {"factor": 1.5},
    "entropy_bound": {"bound": 0.6},
    "predictor_corrector": {"moves": 2, "h": 0.3},
    "gibbs": {"moves": 2},
    "repaint": {"passes": 2},
}


def make_network(has_extra_mask: bool) -> Callable[..., jax.Array]:
    """Makes a network of x_t, time and a label [B], whose logits depend on all places."""
    weights = np.random.default_rng(5).normal(size=(SHAPE[1], SHAPE[1], K, K))

    def network(x: jax.Array, time: jax.Array, label: jax.Array) -> jax.Array:
        dtype = jnp.zeros(()).dtype
        one_hots = jax.nn.one_hot(x, K, dtype=dtype)
        logits = jnp.einsum("bmj,lmjk->blk", one_hots, jnp.asarray(weights, dtype), precision="highest")
        shift = 0.1 * time.astype(dtype) + 0.3 * label.astype(dtype)
        logits = logits * jnp.cos(shift)[:, None, None]
        if has_extra_mask:
            logits = jnp.where(jnp.arange(K).reshape(1, 1, K) == K - 1, -jnp.inf, logits)
        return logits

    return network


def classify(one_hots: jax.Array, time: jax.Array) -> jax.Array:
    """Computes a log probability of a class from one-hots and the time."""
    weights = np.random.default_rng(6).normal(size=(SHAPE[1], K))
    weights = jnp.asarray(weights, one_hots.dtype)
    total = jnp.sum(one_hots * weights[None], axis=(1, 2))
    return jax.nn.log_sigmoid(total - 0.1 * time.astype(total.dtype))


def score(x: jax.Array) -> jax.Array:
    """Scores clean examples, and some as never."""
    total = jnp.sum(x, axis=-1).astype(jnp.zeros(()).dtype)
    return jnp.where(total > 9, -jnp.inf, 0.4 * total)


def variants(sampler: Sampler, network: Callable[..., jax.Array]) -> dict[str, Callable[..., Any]]:
    """Returns what is drawn by name: functions of a key and a process."""
    label = jnp.zeros(SHAPE[0], jnp.int32)
    x0 = np.random.default_rng(7).integers(0, K - 1, SHAPE).astype(np.int32)
    mask = np.random.default_rng(8).random(SHAPE) < 0.4
    known = Known(x0, mask)

    def plain(x: jax.Array, time: jax.Array) -> jax.Array:
        return network(x, time, jnp.zeros(len(x), jnp.int32))

    def chain(network: Any, sampler: Sampler = sampler, belief: Any = "leave_one_out", **options: Any) -> Any:
        record = (0, 1, 2)

        def draw(key: jax.Array, process: Any) -> Any:
            return sample(key, Denoiser(process, network, belief), SHAPE, sampler, record=record, **options)

        return draw

    def guided(gamma: float, on: Any, late: int | None = None) -> Any:
        return guidance.classifier_free(network, label, label + 1, gamma, on, late)

    def watch(key: jax.Array, process: Any) -> Any:
        noise = per_example(key, jnp.arange(SHAPE[0], dtype=jnp.int32), SHAPE[1:])
        x = process.draw_prior(noise(jnp.asarray(0, jnp.int32)))
        drawn = run(Denoiser(process, plain), x, noise, sampler, watch=lambda seen: seen)
        return drawn._replace(seen=None), drawn.seen

    def of_denoiser(draw: Callable[..., Any], **options: Any) -> Any:
        def drawn(key: jax.Array, process: Any) -> Any:
            denoiser = Denoiser(process, plain, "leave_one_out")
            return draw(key, score, 3, denoiser, SHAPE, sampler, first=1, **options)

        return drawn

    def change(**slots: Any) -> Callable[..., Any]:
        def draw(key: jax.Array, process: Any) -> Any:
            return chain(plain, dataclasses.replace(sampler, **slots), known=known)(key, process)

        return draw

    shaping = dataclasses.replace(sampler.shaping, temperature=0.8, top_p=0.9)
    functions: dict[str, Callable[..., Any]] = {f"belief {b}": chain(plain, belief=b) for b in BELIEFS}
    functions |= {
        "shaped": change(shaping=shaping),
        "known": chain(plain, known=known),
        "noised known": change(noises_known=True),
        "block": change(block=2),
        "passes": change(passes=2),
        "guided x_s": chain(guided(1.7, "x_s")),
        "guided x_0": chain(guided(1.7, "x_0", 4)),
        "by classifier": chain(guidance.by_classifier(plain, classify, 1.3)),
        "by classifier, exact": chain(guidance.by_classifier(plain, classify, 1.3, exact=True)),
        "edit": chain(plain, start=PartWay(jnp.asarray(x0), 0.5)),
        "edit of known": chain(plain, start=PartWay(jnp.asarray(x0), 0.8), known=known),
        "watched": watch,
        "best": of_denoiser(best_of),
        "best of known": of_denoiser(best_of, known=known),
        "particles": of_denoiser(steer),
        "particles of known": of_denoiser(steer, known=known),
    }
    if sampler == Sampler():
        functions["own reverse"] = chain(plain, Sampler(OwnReverse(posteriors.p_prev)), belief="d3pm")
    return functions


def record_sampler(name: str, family: str) -> dict[str, Any]:
    """Draws everything of a sampler on a family; returns arrays by name, and texts of what was refused."""
    process = FAMILIES[family]()
    network = make_network(family in ("absorbing", "masked"))
    sampler = named.SAMPLERS[name](**FIELDS.get(name, {}))
    content: dict[str, Any] = {}
    for variant, draw in variants(sampler, network).items():
        # A plan may need the process that was made, and not the copy that jit traces.
        compiled = jax.jit(lambda key, draw=draw: draw(key, process))
        for seed in KEYS:
            place = f"{name}, {family}, {variant}"
            try:
                drawn = compiled(jax.random.key(seed))
            except (ValueError, TypeError) as error:
                content[f"{place}: refused"] = str(error)
                break
            for path, leaf in jax.tree_util.tree_leaves_with_path(drawn):
                content[f"{place}, key {seed}{jax.tree_util.keystr(path)}"] = np.asarray(leaf)
    return content


def write(path: Path, words: list[str]) -> None:
    """Writes the record of all samplers, or of those whose names have some of the words."""
    arrays: dict[str, Any] = {}
    texts = {}
    for name in named.SAMPLERS:
        if words and not any(word in name for word in words):
            continue
        for family in FAMILIES:
            for place, value in record_sampler(name, family).items():
                if isinstance(value, str):
                    texts[place] = value
                else:
                    arrays[place] = value
            print(f"{name}, {family}: {len(arrays)} arrays, {len(texts)} refused", flush=True)
    np.savez_compressed(path, texts=np.asarray(json.dumps(texts)), **arrays)


def compare(old_path: Path, new_path: Path) -> int:
    """Prints what differs between two records; returns the exit status."""
    differences = 0
    with np.load(old_path) as old, np.load(new_path) as new:
        texts = [json.loads(str(record["texts"])) for record in (old, new)]
        for place in sorted(texts[0].keys() | texts[1].keys()):
            if texts[0].get(place) != texts[1].get(place):
                differences += 1
                print(f"{place}\n    {texts[0].get(place)}\n    {texts[1].get(place)}")
        places = sorted((set(old.files) | set(new.files)) - {"texts"})
        for place in places:
            if place not in old.files or place not in new.files:
                differences += 1
                print(f"{place}: only in {'the first' if place in old.files else 'the second'}")
            elif not np.array_equal(old[place], new[place], equal_nan=old[place].dtype.kind == "f"):
                differences += 1
                print(f"{place}: {old[place].ravel()[:8]} and {new[place].ravel()[:8]}")
        print(f"{len(places)} arrays and {len(texts[0])} refusals compared, {differences} differ")
    return int(differences > 0)


def main() -> int:
    """Reads the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    writing = commands.add_parser("write", help="write a record")
    writing.add_argument("file", type=Path)
    writing.add_argument(
        "--only", nargs="*", default=[], metavar="WORDS", help="samplers whose names have these"
    )
    writing.add_argument("--float64", action="store_true", help="compute in float64")
    comparing = commands.add_parser("compare", help="compare two records")
    comparing.add_argument("old", type=Path)
    comparing.add_argument("new", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "compare":
        return compare(arguments.old, arguments.new)
    jax.config.update("jax_enable_x64", arguments.float64)
    write(arguments.file, arguments.only)
    return 0


if __name__ == "__main__":
    sys.exit(main())
