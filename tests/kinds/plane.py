"""A kind of data of one's own: points of the plane, on a ring, drawn as dots; with a config that has it."""

import dataclasses

import numpy as np
from flax import nnx

from d3pm_jax import config
from d3pm_jax.config import Adam, Config, Head, Linear, Train, Uniform
from d3pm_jax.data import ArraySource, Description
from d3pm_jax.errors import UserError
from d3pm_jax.kinds import Kind, Measured, QualityTable, Reference
from d3pm_jax.kinds.blocks import Picture, Strip

SIDE = 16  # a point is (row, column) on a grid of so many


def dots(points, levels):
    """A picture uint8 [SIDE, SIDE, 3] of points int [N, 2], white on black; masks are not in it."""
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    seen = points[(points >= 0).all(1) & (points < min(levels, SIDE)).all(1)]
    picture[seen[:, 0], seen[:, 1]] = 255
    return picture


class Plane(Kind):
    """Points of the plane."""

    name = "plane"
    units = {"bits_per_point": "{:.3f} bits/point"}  # noqa: RUF012
    quality = QualityTable({"on_ring": "on the ring"}, (), ("on_ring", "on the ring"), "Share on the ring.")

    def check(self):
        if self.description.shape != (2,):
            raise UserError(f"shape = {self.description.shape}: a point of the plane has shape (2,)")

    def extra_figures(self, bound, examples):
        return {"bits_per_point": 2 * bound["bits_per_dim"]}

    def prepare_quality(self, train, test, num, batch_size=128, inception=None):
        ring = {tuple(point) for point in train.read()["x"].tolist()}

        def measure(x):
            return Measured({"n": len(x), "on_ring": np.mean([tuple(p) in ring for p in x.tolist()]).item()})

        figures = {"test": measure(test.read(num)["x"]).figures}
        return Reference(f"{len(train)} points", "cells of the grid", figures, measure)

    def show_samples(self, samples):
        return Picture(dots(samples.x, samples.levels), f"{len(samples.x)} points")

    def show_chain(self, states):
        pictures = np.stack([dots(points, states.levels) for points in states.x])
        return Strip(pictures[:, None], states.times, "points")


@dataclasses.dataclass(frozen=True)
class Ring(config.Data):
    def describe(self):
        return Description((2,), SIDE, kind="plane")

    def own_kind(self):
        return Plane

    def open(self, split):
        angle = np.random.default_rng(split == "test").uniform(
            0, 2 * np.pi, {"train": 400, "test": 100}[split]
        )
        centre = (SIDE - 1) / 2
        radius = SIDE / 3
        rows = centre + radius * np.sin(angle)
        columns = centre + radius * np.cos(angle)
        return ArraySource(np.stack([rows, columns], 1).round().astype(np.int32))


class Table(nnx.Module):
    def __init__(self, spec, rngs):
        self.table = nnx.Embed(spec.K, spec.K, rngs=rngs)

    def __call__(self, xt, t, *, label=None, key=None):
        return self.table(xt)


@dataclasses.dataclass(frozen=True)
class OfTable(config.Model):
    def build(self, spec, rngs):
        return Table(spec, rngs)


def get_config():
    return Config(
        data=Ring(),
        process=Uniform(K="data", steps=4, beta=Linear(0.2, 1.0, rescale=False)),
        head=Head(),
        model=OfTable(),
        optimizer=Adam(lr=1e-2),
        train=Train(steps=4, batch_size=16, ema_decay=0.5, log_every=2, sample_every=2),
    )
