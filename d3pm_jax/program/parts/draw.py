"""Holds a request for samples of a run, as it is asked, and as a program is compiled for it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Array, Key

from d3pm_jax.program.parts.guidance import Guidance
from d3pm_jax.sampling import Known, PartWay, Row, Sampler, rows_of_edit
from d3pm_jax.types import Params

Score = Callable[[Any], Any]  # clean examples [M, *S] -> [M]


@dataclasses.dataclass(frozen=True, eq=False)
class Select:
    """Draws several for each sample, and prefers those of a large score.

    A program is compiled for it, and a score may have no hash: what counts is which object it is.
    """

    score: Score
    """of clean examples, int32 [M, *S] -> [M], larger for what you prefer; -inf means never"""
    n: int
    """how many for each sample"""
    what: ClassVar[str] = "sample"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._identity == other._identity  # pyright: ignore

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[type, int, int]:
        return type(self), id(self.score), self.n


class BestOf(Select):
    """Takes of n candidates the one of the largest score, of equal ones the first."""

    what = "candidate"


class Particles(Select):
    """Draws n particles side by side, which the score selects in each row: see `sampling.steer`.

    Samples are then of p(x_0) exp(score(x_0)) / Z, in the limit of many; the score is in nats, and in JAX.
    """

    what = "particle"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draw:
    """Asks for samples of a run; by default they are drawn as its config says.

    Of what: `label` and `condition`. Of which elements: `known` ones stay, `start` is edited, `shape` is
    another length, and `padding` is no part of a sample. How: by a `sampler`, with `guidance`, or several
    for each sample, of which `select` prefers some. `record` asks for states on the way as well.
    """

    label: int | np.ndarray | None = None
    """the class of all samples, or int [M], of which sample i has row i modulo M; without it sample i is of
    class i modulo the number of classes, if the network takes labels"""
    condition: Any = None
    """[N, *C] where the network takes one; sample i has row i modulo N"""
    known: Known | tuple[Any, Any] | None = None
    """elements that samples have, (x0, mask); either may have an axis of N in front, and sample i has row i
    modulo N then"""
    start: PartWay | tuple[Any, float] | None = None
    """examples that samples are edits of, (x0, strength): x0 [*S], or [N, *S], of which sample i has row i
    modulo N; they are noised to t = round(strength T), strength in (0, 1], and the way back is drawn"""
    sampler: Sampler | str | None = None
    """a `sampling.Sampler`, or a name of `sampling.named.SAMPLERS`; None: that of the config"""
    guidance: Guidance | float | None = None
    """towards the label or the condition: `runs.ClassifierFreeGuidance(2.0)` or gamma alone, of a run that
    was trained with `train.drop_condition` above 0; or `runs.ClassifierGuidance(classifier_run, 2.0)`"""
    select: Select | None = None
    """`runs.BestOf(score, 16)` or `runs.Particles(score, 16)`: draws several, and prefers large scores"""
    shape: tuple[int, ...] | None = None
    """*S of a sample, where it is not that of the data"""
    padding: np.ndarray | None = None
    """bool [*S], or [N, *S], of which sample i has row i modulo N: elements that are no part of a sample of
    padded data, and -1 in it (0 to a score); None: those of the test examples that the run keeps, unless
    known, start or shape say what a sample is"""
    record: Sequence[int] = ()
    """the numbers of rows left whose x to return as well; of a sampler that takes all steps these are t"""
    where: Mapping[str, Any] | None = None
    """of a table, elements that samples have by columns, in place of `known`: {"sex": "Male", "age": 39},
    where a number means its bin, and None a missing value"""


@dataclasses.dataclass(frozen=True)
class Settled:
    """Holds what a program that draws a batch is compiled for."""

    shape: tuple[int, ...]  # [N, *S], samples in a batch
    sampler: Sampler | None = None  # None of a run that draws without a chain
    plan: tuple[Row, ...] = ()  # from T to 0
    strength: float | None = None  # of edits, which begin on the way
    guidance: Guidance | None = None
    record: tuple[int, ...] = ()
    select: Select | None = None

    @property
    def rows(self) -> tuple[Row, ...]:
        """Returns the rows of the plan that are taken."""
        if self.strength is None or self.sampler is None:
            return self.plan
        return rows_of_edit(self.sampler, self.plan, self.strength, self.plan[0].t)

    @property
    def rows_are_steps(self) -> bool:
        """Tells whether row t goes from step t to t - 1, so that x by rows left is x_t."""
        if self.sampler is not None and self.sampler.step.goes_by_masks:
            return False
        return all(row.t == row.number and row.s == row.number - 1 for row in self.rows)

    @property
    def per_sample(self) -> int:
        """Returns how many chains are drawn for each sample."""
        return 1 if self.select is None else self.select.n


class Inputs(NamedTuple):
    """Holds the arguments of a program that draws a batch: N samples, of P chains each."""

    params: Params
    process: Any
    guidance_params: Params | None
    key: Key[Array, ""]
    first: Any  # the number of the first sample
    label: Any  # [N P], or None
    condition: Any  # [N P, *C], or None
    weight: Any  # [N P, *S], 0 on padding, or None
    known: Known | None  # [*S] or [N, *S]
    start: Any  # x_0 of edits, [*S] or [N, *S], or None
