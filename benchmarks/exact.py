"""Exact likelihoods of networks that fill in masks, beside published figures: a row a command.

    python benchmarks/exact.py debd NAME --files DEBD [--workdir runs/debd_NAME] [--minutes 25] [--go-on]
    python benchmarks/exact.py debd NAME --files DEBD --start RUN --workdir runs/debd_NAME_end

`debd` takes a binary data set of density estimation. NAME is nltcs, plants, baudio, jester, bnetflix,
accidents, mushrooms, pumsb_star, dna, nips or bbc, and DEBD the folder of the files, as published
(https://github.com/UCLA-StarAI/Density-Estimation-Datasets: NAME/NAME.train.data and so on) or packed:
NAME.npz, in which train, valid and test are `numpy.packbits(x, axis=1)`, and `variables` is the length of a
row.

It trains configs/debd.py until the bound of the validation split has not fallen for some evaluations, or for
so many core minutes, and measures the checkpoint where that bound was least. A run that is there is measured
only, unless it is to `--go-on`. `--no-test` looks at no row of the test split.

With `--start` a second training begins with the weights that were best in another run: a quarter of its steps
at a third of the learning rate, which falls to 0.

The figures are log-likelihoods of the test rows in nats, with the standard error of the mean over rows. The
orders, drawn by the seed, are common to all rows. M = 1 is the mean over 16 orders, each of which has an
exact likelihood. M = 8 and 16 are the mixture of the first M of them, the log of the mean probability: the
exact likelihood of one law. Of 16 bits there is the mixture of all 16! orders too.
"""

import argparse
import json
import math
import resource
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from d3pm_jax import likelihood, models, orders, runs
from d3pm_jax.config import Adam, Arrays, Config, io as config_io

CONFIG = Path(__file__).parents[1] / "configs" / "debd.py"
PATIENCE = 10  # evaluations without a better one, after which a training ends
FEW = 5000  # training rows: of fewer the bound is evaluated every 100 steps, of others every 500
ORDERS = 16
MIXTURES = (8, 16)  # orders
BATCH = 512  # rows
STATES = 8192  # partial rows in a call of the network
MASK = 2
RESULT = "exact.json"
BOUND = "valid_bits_per_dim"


class Published(NamedTuple):
    """Holds test log-likelihoods as they were published; None where there is none."""

    one_order: float | None = None  # order-agnostic NADE 1hl, mean over orders (Uria et al. 2014)
    eonade: float | None = None  # the same, mixture of 16 orders
    made: float | None = None  # mixture of 8 orders (Peharz et al. 2019)
    learn_spn: float | None = None  # Gens and Domingos 2013; jester as Rooshenas and Lowd 2014 print it
    id_spn: float | None = None  # Rooshenas and Lowd 2014
    hclt: float | None = None  # Liu and Van den Broeck 2021, read in Selvam et al. 2023
    vae_bound: float | None = None  # a bound, of 5 samples (Peharz et al. 2019)


PUBLISHED = {
    "nltcs": Published(made=-6.04, learn_spn=-6.11, id_spn=-6.02, hclt=-5.999, vae_bound=-5.99),
    "plants": Published(made=-12.32, learn_spn=-12.98, id_spn=-12.54, hclt=-14.26, vae_bound=-12.34),
    "baudio": Published(made=-38.95, learn_spn=-40.50, id_spn=-39.79, hclt=-39.77, vae_bound=-38.67),
    "jester": Published(made=-52.23, learn_spn=-53.48, id_spn=-52.86, hclt=-52.46, vae_bound=-51.54),
    "bnetflix": Published(made=-55.16, learn_spn=-57.33, id_spn=-56.36, hclt=-56.27, vae_bound=-54.73),
    "accidents": Published(made=-26.42, learn_spn=-30.04, id_spn=-26.98, hclt=-26.74, vae_bound=-29.11),
    "mushrooms": Published(one_order=-10.06, eonade=-9.68),
    "pumsb_star": Published(made=-22.3, learn_spn=-24.78, id_spn=-22.40, hclt=-23.64, vae_bound=-25.16),
    "dna": Published(made=-82.77, learn_spn=-82.52, id_spn=-81.21, hclt=-79.05, vae_bound=-94.56),
    "nips": Published(one_order=-275.20, eonade=-272.38),
    "bbc": Published(made=-242.40, learn_spn=-250.69, id_spn=-248.93, hclt=-251.04, vae_bound=-240.94),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    tables = parser.add_subparsers(dest="table", required=True)
    debd = tables.add_parser("debd", help="binary data sets of density estimation")
    debd.add_argument("name", choices=sorted(PUBLISHED))
    debd.add_argument("--files", type=Path, required=True, help="the folder of the published files")
    debd.add_argument("--workdir", type=Path, help="the folder of the run (runs/debd_NAME)")
    debd.add_argument("--seed", type=int, default=0, help="of the training, and of the orders")
    debd.add_argument("--minutes", type=float, default=25.0, help="core minutes of the training, at most")
    debd.add_argument("--go-on", action="store_true", help="train a run that is there for further minutes")
    debd.add_argument("--start", type=Path, help="the folder of a first training, to begin from its best")
    debd.add_argument("--no-test", action="store_true", help="look at no row of the test split")
    args = parser.parse_args()
    print_debd(args)


# ---- Binary data sets ----


def print_debd(args: argparse.Namespace) -> None:
    """Trains on a data set, or opens the run that is there, and prints our row beside published ones."""
    workdir = args.workdir or Path("runs") / f"debd_{args.name}"
    result = json.loads((workdir / RESULT).read_text()) if (workdir / RESULT).exists() else {}
    if not result or args.go_on:
        config = make_config(read_rows(args.files, args.name), workdir, args.seed)
        if args.start is None:
            trained = train(config, workdir, args.minutes)
        else:
            trained = train_on(config, workdir, args.start)
        trained["core_minutes"] = round(trained["core_minutes"] + result.get("core_minutes", 0.0), 1)
        result = trained
        (workdir / RESULT).write_text(json.dumps(result))
    print(f"{args.name}: {result}", flush=True)
    if args.no_test:
        return
    run = runs.open(workdir, step=result["step"])
    x0 = read_rows(args.files, args.name)["test"]
    drawn = np.random.default_rng(args.seed).random((ORDERS, x0.shape[1]), np.float32)
    nats = measure_orders(run, x0, drawn)  # [M, N]
    figures = {"M = 1": nats.mean(0)}
    for M in MIXTURES:
        figures[f"M = {M}"], effective = orders.mixture(jnp.asarray(nats[:M]))
        result[f"effective of {M}"] = float(effective.mean())
    if x0.shape[1] <= orders.MOST_PLACES:
        figures["all orders"] = mix_all_orders(run, x0)
    for name, values in figures.items():
        mean, error = map(float, likelihood.mean_and_se(-jnp.asarray(values)))
        print(f"  {name:10} {mean:9.4f} ± {error:.4f}", flush=True)
        result[name] = [mean, error]
    by_order = nats.mean(1)
    result["sd of orders"] = float(by_order.std(ddof=1))
    for name, value in PUBLISHED[args.name]._asdict().items():
        if value is not None:
            print(f"  {name:10} {value:9.2f}")
    (workdir / RESULT).write_text(json.dumps(result))


def read_rows(folder: Path, name: str) -> dict[str, np.ndarray]:
    """Reads the splits of a data set, int8 [N, D] each."""
    splits = ("train", "valid", "test")
    packed = folder / f"{name}.npz"
    if not packed.exists():
        files = {split: folder / name / f"{name}.{split}.data" for split in splits}
        return {split: np.loadtxt(file, np.int8, delimiter=",", ndmin=2) for split, file in files.items()}
    arrays = np.load(packed)
    length = int(arrays["variables"])
    return {split: np.unpackbits(arrays[split], axis=1)[:, :length].astype(np.int8) for split in splits}


def make_config(rows: Mapping[str, np.ndarray], workdir: Path, seed: int) -> Config:
    """Returns the config for a data set, whose splits it writes beside the folder of the run."""
    files = {}
    for split, x0 in rows.items():
        file = workdir.parent / f"{workdir.name}_{split}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, x0)
        files[split] = str(file)
    config = config_io.read_config_file(CONFIG)
    every = 100 if len(rows["train"]) < FEW else 500
    train = config.train
    # When the training ends the best checkpoint is there: the interrupt adds one.
    kept = {"eval_every": every, "checkpoint_every": every, "keep_checkpoints": PATIENCE + 2}
    return replace(
        config,
        data=Arrays(**files, categories=2),
        train=replace(train, seed=seed, log_every=every, **kept),
    )


class EarlyStop:
    """Ends a training by an interrupt, once validation has not improved for long, or time is up.

    It is a log of the training.
    """

    def __init__(self, workdir: Path, minutes: float):
        self._bounds = [(row[BOUND], row["step"]) for row in runs.read_metrics(workdir) if BOUND in row]
        self._minutes = minutes

    @property
    def best(self) -> tuple[float, int]:
        """Returns the least bound of the validation split, and its step."""
        return min(self._bounds)

    def log(self, step: int, values: Mapping[str, float | int]) -> None:
        """Takes the metrics of a step."""
        if BOUND not in values:
            return  # the last line, after the interrupt
        self._bounds.append((values[BOUND], step))
        is_worse = len(self._bounds) - 1 - self._bounds.index(self.best) >= PATIENCE
        if is_worse or count_minutes() > self._minutes:
            signal.raise_signal(signal.SIGINT)

    def close(self) -> None:
        """Has nothing to close."""


def train_on(config: Config, workdir: Path, first: Path) -> dict[str, Any]:
    """Trains on from the best weights of another run at a learning rate that falls to 0."""
    before = json.loads((first / RESULT).read_text())
    every = config.train.eval_every
    steps = max(before["step"] // (4 * every), 1) * every
    assert isinstance(config.optimizer, Adam)
    optimizer = replace(config.optimizer, lr=config.optimizer.lr / 3, warmup_steps=0, decay_steps=steps)
    config = replace(config, optimizer=optimizer, train=replace(config.train, steps=steps))
    trained = train(config, workdir, math.inf, runs.open(first, step=before["step"]))
    print(
        f"validation: {before['valid_bound']} of the first training, {trained['valid_bound']} of the second"
    )
    return trained | {"core_minutes": round(before["core_minutes"] + trained["core_minutes"], 1)}


def train(config: Config, workdir: Path, minutes: float, first: runs.Run | None = None) -> dict[str, Any]:
    """Trains, and returns the best step, its bound on the validation split, and what was spent.

    Args:
        config: of the training.
        workdir: the folder of the run; one that is there goes on.
        minutes: of cores, at most.
        first: a run to begin from.
    """
    stop = EarlyStop(workdir, minutes)
    start = count_minutes()
    last = runs.train(config, workdir, (workdir / "config.json").exists(), first, logs=[stop])
    bits_per_dim, step = stop.best
    nats = bits_per_dim * config.data.describe().shape[0] * math.log(2)
    spent = {"last_step": last.step, "core_minutes": round(count_minutes() - start, 1)}
    return {"step": step, "valid_bound": round(nats, 3), "seed": config.train.seed, **spent}


def count_minutes() -> float:
    """Counts the minutes of cores that the process has taken."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime / 60


def measure_orders(run: runs.Run, x0: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Computes -log p of each row in each of several orders, float32 [M, N].

    It is the sum of `likelihood.chain_rule` for an MLP that sees no time, which takes less work here: from
    one element to the next the sum of embeddings changes by those of one place, and the logits of one place
    are all that is asked for.

    Args:
        run: of such a network.
        x0: rows of bits [N, D].
        drawn: orders [M, D]; the place with the lowest number comes first.
    """
    network = build_network(run)
    N, D = x0.shape
    table = network.embed.embedding[...].reshape(D, MASK + 1, -1)  # of each place: of 0, 1 and the mask
    assert network.head.bias is not None
    kernel = network.head.kernel[...].reshape(-1, D, MASK + 1)
    bias = network.head.bias[...].reshape(D, MASK + 1)

    @jax.jit
    def measure(x0: jax.Array, order: jax.Array) -> jax.Array:
        def add_place(state: tuple[jax.Array, jax.Array], place: jax.Array) -> tuple:
            h, nats = state
            added = h
            for block in network.blocks:
                added = block(added, None)
            logits = network.norm(added) @ kernel[:, place, :MASK] + bias[place, :MASK]  # [B, 2]
            bits = x0[:, place]  # [B]
            nats -= jnp.take_along_axis(jax.nn.log_softmax(logits), bits[:, None], axis=1)[:, 0]
            return (h + table[place][bits] - table[place, MASK], nats), None

        masked = jnp.broadcast_to(table[:, MASK].sum(0), (len(x0), table.shape[-1]))
        (_, nats), _ = jax.lax.scan(add_place, (masked, jnp.zeros(len(x0))), jnp.argsort(order))
        return nats

    padded = np.zeros((-(-N // BATCH) * BATCH, D), np.int32)
    padded[:N] = x0
    costs = [
        np.concatenate([measure(rows, order) for rows in padded.reshape(-1, BATCH, D)])[:N] for order in drawn
    ]
    few = jnp.asarray(x0[:4], jnp.int32)
    by_library = likelihood.chain_rule(fill_in(network), few, jnp.broadcast_to(drawn[0], few.shape), MASK)
    np.testing.assert_allclose(costs[0][:4], by_library.sum(1), rtol=1e-4)
    return np.array(costs)


def build_network(run: runs.Run) -> models.MLP:
    """Builds the network of a run of bits, with its averaged weights."""
    model = run.config.model
    shape = run.parts.description.shape
    network = models.MLP(models.Inputs(shape, MASK + 1), model.width, model.num_layers, rngs=nnx.Rngs(0))
    nnx.update(network, run.params)
    return network


def fill_in(network: models.MLP) -> likelihood.FillIn:
    """Returns xt -> logits of 0 and 1."""
    return lambda xt: network(xt, jnp.ones(1, jnp.int32))[..., :MASK]


def mix_all_orders(run: runs.Run, x0: np.ndarray) -> np.ndarray:
    """Computes -log p of each row under the mixture over all D! orders, float64 [N].

    g(S) is the probability that the elements S of a row are filled in first, in any order, with what the row
    has there: the mean over i in S of g(S minus i) p(x_i | the rest of S). It is computed once for each
    partial row that any row has, from the one that is all masks; `orders.all_orders` calls the network for
    all 2^D partial rows of each row.
    """
    rows, which = np.unique(x0, axis=0, return_inverse=True)
    D = rows.shape[1]
    powers = (MASK + 1) ** np.arange(D)
    subsets = np.arange(2**D)[:, None] >> np.arange(D) & 1 == 1  # [2^D, D]
    is_needed = np.zeros((MASK + 1) ** D, bool)
    for row in rows:
        # The code of a partial row has a digit for each place.
        is_needed[np.where(subsets, row, MASK) @ powers] = True
    codes = np.flatnonzero(is_needed)
    known = sum((codes // power % (MASK + 1) != MASK).astype(np.int8) for power in powers)
    g = np.zeros(len(is_needed))
    g[np.full(D, MASK) @ powers] = 1.0
    log_p = nnx.jit(lambda network, xt: jax.nn.log_softmax(fill_in(network)(xt)))
    network = build_network(run)
    for count in range(D):
        level = codes[known == count]
        for start in range(0, len(level), STATES):
            batch = level[start : start + STATES]
            xt = batch[:, None] // powers % (MASK + 1)  # [B, D]
            padded = np.full((STATES, D), MASK, np.int32)
            padded[: len(batch)] = xt
            p = np.exp(np.asarray(log_p(network, padded), np.float64)[: len(batch)])
            for place in range(D):
                masked = xt[:, place] == MASK
                for bit in range(MASK):
                    more = batch[masked] + (bit - MASK) * powers[place]
                    g[more] += g[batch[masked]] * p[masked, place, bit] / (count + 1)
    nats = -np.log(g[rows @ powers])
    by_library = orders.all_orders(fill_in(network), jnp.asarray(rows[:2], jnp.int32), MASK)
    np.testing.assert_allclose(nats[:2], by_library, rtol=1e-4)
    return nats[which.reshape(-1)]


if __name__ == "__main__":
    main()
