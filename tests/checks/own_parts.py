"""Trains with each part of one's own doing something wrong in turn, and says what the training answers.

    python -m tests.checks.own_parts [PART ...]

A training is refused in one line that names the part and what to do (clear), says so in a line and goes on
(said), or skips the steps that are not finite and ends for that (marked). Anything else is a defect: silent,
unclear, or NaN in the weights. What a part returns of another type or shape, or as another number, is told
from one call of it: what changes later is not.
"""

import collections
import contextlib
import dataclasses
import io
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from d3pm_jax import config as configs, processes, runs
from d3pm_jax.config import Config, Train
from d3pm_jax.config.objective import Terms
from d3pm_jax.data import ArraySource, Description
from d3pm_jax.errors import UserError
from tests.checks.table import raised_here

DEFECTS = ("silent", "unclear", "NaN")
OUTCOMES = ("clear", "said", "marked", "legal", *DEFECTS)
L = 3
K = 3
T = 4
BATCH = 4


class Net(nnx.Module):
    """Has a table of logits by category."""

    def __init__(self, spec: Any, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(spec.K, spec.outputs or spec.K, rngs=rngs)
        self.scale = nnx.Param(jnp.ones(()))

    def __call__(self, xt: Any, t: Any, *, key: Any = None) -> Any:
        return self.scale[...] * self.embed(xt) + t[:, None, None] / T


@dataclasses.dataclass(frozen=True)
class OwnData(configs.Data):
    def describe(self) -> Description:
        return Description((L,), K)

    def open(self, split: str) -> Any:
        return ArraySource(np.random.default_rng(0).integers(0, K, (8, L)))


@dataclasses.dataclass(frozen=True)
class OwnModel(configs.Model):
    def build(self, spec: Any, rngs: nnx.Rngs) -> Any:
        return Net(spec, rngs)


@dataclasses.dataclass(frozen=True)
class OwnProcess(configs.Process):
    def build(self) -> Any:
        return make_process()


@dataclasses.dataclass(frozen=True)
class OwnSchedule(configs.Schedule):
    def build(self, steps: int) -> Any:
        return np.array([0.1, 0.2, 0.5, 1.0])


@dataclasses.dataclass(frozen=True)
class OwnHead(configs.Head):
    def logits(self, output: Any, xt: Any, K: int) -> Any:
        return output


@dataclasses.dataclass(frozen=True)
class OwnLoss(configs.HybridLoss):
    pass


@dataclasses.dataclass(frozen=True)
class OwnTimes(configs.LowDiscrepancy):
    pass


@dataclasses.dataclass(frozen=True)
class OwnRule(configs.Optimizer):
    def build(self) -> Any:
        return optax.sgd(0.1)


@dataclasses.dataclass(frozen=True)
class OwnRated(configs.RatedOptimizer):
    lr: float = 0.1  # pyright: ignore[reportIncompatibleVariableOverride]

    def rule(self, learning_rate: Any) -> Any:
        return optax.sgd(learning_rate)


@dataclasses.dataclass(frozen=True)
class OwnRate(configs.Rate):
    def build(self) -> Any:
        return lambda count: 1.0


def make_process() -> processes.Process:
    return processes.uniform(np.array([0.1, 0.2, 0.5, 1.0]), K)


def get_config(**parts: Any) -> Config:
    """Three letters, with parts of one's own where they are given."""
    good: dict[str, Any] = {
        "data": OwnData(),
        "process": OwnProcess(),
        "model": OwnModel(),
        "head": OwnHead(),
        "loss": OwnLoss(),
        "timesteps": OwnTimes(),
        "optimizer": OwnRule(),
    }
    train = Train(steps=3, batch_size=BATCH, log_every=1, checkpoint_every=3, sample_every=3, max_nonfinite=2)
    return Config(**good | parts, train=train)


class Fault(NamedTuple):
    """Holds a part that does something wrong, and the word that the answer has to have."""

    part: str  # a field of the config
    case: str
    make: Callable[[], Any]
    word: str
    is_legal: bool = False


def changed(base: type, **methods: Any) -> Any:
    """Returns an instance of a class of the user's own with some methods in the place of its own."""
    cls = type(f"Own{base.__name__}", (base,), {**methods, "__module__": __name__})
    return dataclasses.dataclass(frozen=True)(cls)()


def returning(base: type, method: str, value: Any) -> Any:
    def answer(self: Any, *arguments: Any, **keywords: Any) -> Any:
        return value

    answer.__name__ = method
    return changed(base, **{method: answer})


ANYTHING: dict[str, Any] = {
    "None": None,
    "a text": "abc",
    "a dict": {"a": 1},
    "a number": 0.5,
    "a tuple": (1.0, 2.0),
    "a class": dict,
    "an array": np.ones(2),
}


# ---- Optimizers and rates ----


def rule(update: Callable[..., Any], init: Callable[..., Any] = lambda params: ()) -> Any:
    """An optimizer of these two functions."""
    return returning(OwnRule, "build", optax.GradientTransformation(init, update))


def optimizers() -> Iterator[Fault]:
    for case, value in ANYTHING.items():
        yield Fault(
            "optimizer", f"build returns {case}", lambda v=value: returning(OwnRule, "build", v), "build"
        )

    def count(params: Any) -> Any:
        return jnp.zeros((), jnp.int32)

    def each(f: Callable[[Any], Any]) -> Callable[..., Any]:
        """An update that changes each array of the gradient by a function."""
        return lambda grads, state, params=None: (jax.tree.map(f, grads), state)

    updates = {
        "None": lambda grads, state, params=None: None,
        "updates alone": lambda grads, state, params=None: grads,
        "three things": lambda grads, state, params=None: (grads, state, 0),
        "no updates": lambda grads, state, params=None: (None, state),
        "a list of updates": lambda grads, state, params=None: (jax.tree.leaves(grads), state),
        "updates of size 1": each(lambda x: jnp.ones((1,) * x.ndim)),
        "updates of an axis more": each(lambda x: x[None]),
        "updates that are numbers": each(lambda x: 0.1),
        "updates that are sums": each(jnp.sum),
    }
    for case, update in updates.items():
        yield Fault("optimizer", f"update returns {case}", lambda u=update: rule(u), "update")
    states = {
        "grows": lambda state: (*state, jnp.zeros(())) if isinstance(state, tuple) else (state, state),
        "is lost": lambda state: None,
        "is longer": lambda state: jnp.concatenate([jnp.atleast_1d(state)] * 2),
        "is of floats": lambda state: state + 0.5,
        "is of another int": lambda state: state.astype(jnp.int8),
        "is a text": lambda state: "abc",
        "has a name": lambda state: {"count": state},
    }
    for case, f in states.items():
        update = lambda grads, state, params=None, f=f: (grads, f(state))  # noqa: E731
        yield Fault("optimizer", f"a state that {case}", lambda u=update: rule(u, count), "update")
    right = {
        "counts": rule(lambda grads, state, params=None: (grads, state + 1), count),
        "of bfloat16": rule(each(lambda x: -x.astype(jnp.bfloat16))),
        "chained": returning(OwnRule, "build", optax.chain(optax.clip(1.0), optax.adam(1e-3))),
    }
    for case, optimizer in right.items():
        yield Fault("optimizer", f"a rule {case}", lambda o=optimizer: o, "", is_legal=True)
    yield Fault("optimizer", "updates of NaN", lambda: rule(each(lambda x: x * jnp.nan)), "finite")


def rates() -> Iterator[Fault]:
    def with_rate(rate: Any) -> Any:
        return configs.AdamW(rate=returning(OwnRate, "build", rate))

    for case, value in ANYTHING.items():
        if case != "a class":  # which is a function too
            yield Fault("optimizer.rate", f"build returns {case}", lambda v=value: with_rate(v), "build")
    values: dict[str, Any] = {
        **{case: value for case, value in ANYTHING.items() if case != "a number"},
        "True": True,
        "complex": 1j,
        "negative": -1.0,
        "NaN": np.nan,
        "infinite": np.inf,
        "0 at all": 0.0,
        "an array of one": jnp.ones(1),
    }
    for case, value in values.items():
        yield Fault("optimizer.rate", f"it is {case}", lambda v=value: with_rate(lambda count: v), "rate")
    later = {
        "negative later": lambda count: 1.0 - jnp.asarray(count),
        "NaN later": lambda count: jnp.where(jnp.asarray(count) > 1, jnp.nan, 1.0),
    }
    for case, rate in later.items():
        yield Fault("optimizer.rate", f"it is {case}", lambda r=rate: with_rate(r), "rate")
    yield Fault("optimizer", "lr = -1", lambda: OwnRated(lr=-1.0), "rate")
    yield Fault("optimizer", "lr = 0", lambda: OwnRated(lr=0.0), "", is_legal=True)
    right = {
        "of JAX": lambda count: jnp.asarray(0.5),
        "0 at first": lambda count: jnp.minimum(1.0, jnp.asarray(count) / 2),
        "0 at last": lambda count: jnp.maximum(0.0, 1 - jnp.asarray(count)),
        "of optax": optax.cosine_decay_schedule(1.0, 10),
        "a whole number": lambda count: 1,
    }
    for case, rate in right.items():
        yield Fault("optimizer.rate", f"it is {case}", lambda r=rate: with_rate(r), "", is_legal=True)


# ---- Times ----


def times() -> Iterator[Fault]:
    def drawn(t: Any, p: Any) -> Any:
        return changed(OwnTimes, draw=lambda self, key, history, B, T: (t(B), p(B)))

    def ones(B: int) -> Any:
        return jnp.ones(B, jnp.int32)

    def even(B: int) -> Any:
        return jnp.full(B, 1 / T)

    for case, value in ANYTHING.items():
        yield Fault(
            "timesteps", f"draw returns {case}", lambda v=value: returning(OwnTimes, "draw", v), "draw"
        )
    wrong_t = {
        "0": lambda B: 0 * ones(B),
        "T + 1": lambda B: ones(B).at[1].set(T + 1),
        "negative": lambda B: -ones(B),
        "floats": lambda B: even(B),
        "longer": lambda B: ones(B + 1),
        "a number": lambda B: 1,
    }
    for case, t in wrong_t.items():
        yield Fault(
            "timesteps", f"t of {case}", lambda t=t: drawn(t, even), "draw" if case in SHAPES else "t "
        )
    wrong_p = {
        "negative": lambda B: -even(B),
        "above 1": lambda B: even(B).at[1].set(1.5),
        "0": lambda B: 0 * even(B),
        "NaN": lambda B: even(B).at[0].set(jnp.nan),
        "infinite": lambda B: even(B) * jnp.inf,
        "longer": lambda B: even(B + 1),
        "a number": lambda B: 0.25,
    }
    for case, p in wrong_p.items():
        word = "draw" if case in SHAPES else "p_t"
        yield Fault("timesteps", f"p of {case}", lambda p=p: drawn(ones, p), word)
    yield Fault("timesteps", "t = 1 alone", lambda: drawn(ones, lambda B: jnp.ones(B)), "", is_legal=True)

    def learning(start: Any, update: Any) -> Any:
        methods = {"start": lambda self, T: start, "update": lambda self, history, t, kl: update(history)}
        return changed(OwnTimes, **methods)

    histories = {
        "lost": lambda history: None,
        "longer": lambda history: jnp.concatenate([history, history]),
        "of another type": lambda history: history.astype(jnp.int32),
        "two": lambda history: (history, history),
    }
    for case, update in histories.items():
        yield Fault(
            "timesteps", f"a history that is {case}", lambda u=update: learning(jnp.ones(T), u), "update"
        )
    yield Fault("timesteps", "a history", lambda: learning(jnp.ones(T), lambda x: x + 1), "", is_legal=True)


SHAPES = ("floats", "longer", "a number")


# ---- Networks and heads ----


def networks() -> Iterator[Fault]:
    for case, value in ANYTHING.items():
        yield Fault("model", f"build returns {case}", lambda v=value: returning(OwnModel, "build", v), "")

    def of(call: Callable[..., Any]) -> Any:
        net = type("OwnNet", (Net,), {"__call__": call, "__module__": __name__})
        return changed(OwnModel, build=lambda self, spec, rngs: net(spec, rngs))

    def table(self: Any, xt: Any, t: Any) -> Any:
        return Net.__call__(self, xt, t)

    calls = {
        "does not look at x": (lambda self, xt, t: table(self, jnp.zeros_like(xt), t), "x_t"),
        "looks at the shape of x": (lambda self, xt, t: jnp.zeros((*xt.shape, K)) + self.scale[...], "x_t"),
        "takes one argument": (lambda self, xt: table(self, xt, xt), "called"),
        "takes a keyword": (lambda self, xt, t, *, depth: table(self, xt, t), "called"),
        "returns NaN": (lambda self, xt, t: table(self, xt, t) * jnp.nan, "finite"),
        "returns inf": (lambda self, xt, t: table(self, xt, t) + jnp.inf, "finite"),
        "returns integers": (lambda self, xt, t: table(self, xt, t).astype(int), "float"),
        "returns complex": (lambda self, xt, t: table(self, xt, t) + 0j, "float"),
        "has no last axis": (lambda self, xt, t: table(self, xt, t)[..., 0], "expected"),
        "has K + 1": (lambda self, xt, t: jnp.zeros((*xt.shape, K + 1)) + self.scale[...], "expected"),
        "returns two": (lambda self, xt, t: (table(self, xt, t),) * 2, "return"),
        "fails": (lambda self, xt, t: self.nothing, "nothing"),
    }
    for case, (call, word) in calls.items():
        yield Fault("model", case, lambda c=call: of(c), word)
    yield Fault("model", "looks at x", lambda: of(lambda self, xt, t: table(self, xt, t)), "", is_legal=True)
    by_jit = jax.jit(lambda scale, xt: scale * jax.nn.one_hot(xt, K))
    by_scan = lambda self, xt, t: jax.lax.scan(  # noqa: E731
        lambda carry, x: (carry, by_jit(self.scale[...], x)), 0, xt.T
    )[1].swapaxes(0, 1)
    yield Fault("model", "looks at x in a loop", lambda: of(by_scan), "", is_legal=True)


def heads() -> Iterator[Fault]:
    for case, value in ANYTHING.items():
        yield Fault("head", f"logits returns {case}", lambda v=value: returning(OwnHead, "logits", v), "")
    changes = {
        "integers": (lambda logits: logits.astype(int), "logits"),
        "NaN": (lambda logits: logits * jnp.nan, "finite"),
        "inf": (lambda logits: logits + jnp.inf, "finite"),
        "all -inf": (lambda logits: logits - jnp.inf, "finite"),
        "an axis less": (lambda logits: logits[..., 0], "logits"),
        "fewer": (lambda logits: logits[..., 1:], "logits"),
    }
    for case, (change, word) in changes.items():
        head = changed(OwnHead, logits=lambda self, output, xt, K, c=change: c(output))
        yield Fault("head", f"logits of {case}", lambda h=head: h, word)


# ---- Losses ----


def losses() -> Iterator[Fault]:
    def of(terms: Callable[[Any], Any]) -> Any:
        def changed_terms(self: Any, process: Any, logits: Any, x0: Any, xt: Any, t: Any, p_t: Any) -> Any:
            good = configs.HybridLoss.terms(self, process, logits, x0, xt, t, p_t)
            return terms(good)

        return changed(OwnLoss, terms=changed_terms)

    for case, value in ANYTHING.items():
        yield Fault("loss", f"terms returns {case}", lambda v=value: of(lambda good: v), "terms")
    changes = {
        "two": (lambda good: good[:2], "terms"),
        "sums": (lambda good: Terms(*map(jnp.sum, good)), "terms"),
        "integers": (lambda good: Terms(*(x.astype(int) for x in good)), "terms"),
        "NaN": (lambda good: good._replace(loss=good.loss * jnp.nan), "finite"),
        "inf": (lambda good: good._replace(kl=good.kl + jnp.inf), "finite"),
    }
    for case, (change, word) in changes.items():
        yield Fault("loss", f"terms of {case}", lambda c=change: of(c), word)
    for case, value in ANYTHING.items():
        yield Fault("loss", f"draw returns {case}", lambda v=value: returning(OwnLoss, "draw", v), "draw")
    wrong_x = {
        "K": lambda x0: x0 + K,
        "-1": lambda x0: x0 - K,
        "floats": lambda x0: x0 * 1.0,
        "fewer": lambda x0: x0[:, 1:],
    }
    for case, change in wrong_x.items():
        loss = changed(OwnLoss, draw=lambda self, process, x0, t, u, c=change: c(x0))
        word = "draw" if case in ("floats", "fewer") else "finite"
        yield Fault("loss", f"x_t of {case}", lambda l=loss: l, word)


# ---- Processes and schedules ----


class Wrapped(processes.Process):
    """A process of one's own: that of the library, method by method."""

    K = K
    T = T

    def __init__(self) -> None:
        self.inner = make_process()

    def log_q_probs(self, x0: Any, t: Any) -> Any:
        return self.inner.log_q_probs(x0, t)

    def log_q_back(self, xt: Any, t: Any) -> Any:
        return self.inner.log_q_back(xt, t)

    def log_push(self, log_p: Any, t: Any) -> Any:
        return self.inner.log_push(log_p, t)

    def log_prior(self) -> Any:
        return self.inner.log_prior()


def processes_of_ones_own() -> Iterator[Fault]:
    def of(**members: Any) -> Any:
        cls = type("OwnWrapped", (Wrapped,), {**members, "__module__": __name__})
        jax.tree_util.register_pytree_node(
            cls, lambda x: ((x.inner,), ()), lambda _, leaves: filled(cls, *leaves)
        )
        return returning(OwnProcess, "build", cls())

    def filled(cls: type, inner: Any) -> Any:
        process = object.__new__(cls)
        process.inner = inner
        return process

    for case, value in ANYTHING.items():
        yield Fault(
            "process", f"build returns {case}", lambda v=value: returning(OwnProcess, "build", v), "build"
        )
    yield Fault("process", "one of ones own", of, "", is_legal=True)
    for name in ("log_q_probs", "log_q_back", "log_push", "log_prior"):
        good = getattr(Wrapped, name)
        changes = {
            "None": lambda x: None,
            "fewer categories": lambda x: x[..., 1:],
            "an axis less": lambda x: x[..., 0],
            "an axis more": lambda x: x[None],
            "integers": lambda x: jnp.zeros(x.shape, int),
        }
        if name in ("log_q_probs", "log_q_back"):
            changes["NaN"] = lambda x: x * jnp.nan
        for case, change in changes.items():

            def method(self: Any, *arguments: Any, good: Any = good, change: Any = change) -> Any:
                return change(good(self, *arguments))

            method.__name__ = name
            word = "finite" if case == "NaN" else name
            yield Fault("process", f"{name} of {case}", lambda n=name, m=method: of(**{n: m}), word)
    wrong = {
        "K": {"K": K - 1},
        "no K": {"K": None},
        "T": {"T": 0},
        "no T": {"T": None},
        "K of 2.5": {"K": 2.5},
    }
    for case, members in wrong.items():
        yield Fault(
            "process",
            f"wrong {case}",
            lambda m=members: of(**m),
            case.split()[-1] if "2.5" not in case else "K",
        )


def schedules() -> Iterator[Fault]:
    def of(beta: Any) -> Any:
        return configs.Uniform(K=K, steps=T, beta=returning(OwnSchedule, "build", beta))

    wrong = {
        **ANYTHING,
        "negative": np.array([0.1, -0.2, 0.5, 1.0]),
        "above 1": np.array([0.1, 0.2, 0.5, 1.5]),
        "NaN": np.array([0.1, np.nan, 0.5, 1.0]),
        "texts": np.array(["a"] * T),
        "objects": np.array([None] * T),
        "complex": np.full(T, 0.5j),
        "booleans": np.ones(T, bool),
        "longer": np.full(T + 1, 0.5),
        "a rank more": np.full((T, 1), 0.5),
    }
    for case, beta in wrong.items():
        yield Fault("process", f"a schedule of {case}", lambda b=beta: of(b), "beta")
    for case, beta in {"a list": [0.1, 0.2, 0.5, 1.0], "JAX": jnp.array([0.1, 0.2, 0.5, 1.0])}.items():
        yield Fault("process", f"a schedule of {case}", lambda b=beta: of(b), "", is_legal=True)


# ---- Data ----


def data() -> Iterator[Fault]:
    x = np.zeros((8, L), int)
    for case, value in ANYTHING.items():
        yield Fault(
            "data", f"describe returns {case}", lambda v=value: returning(OwnData, "describe", v), "describ"
        )
        if case != "an array":
            yield Fault("data", f"open returns {case}", lambda v=value: returning(OwnData, "open", v), "open")
    examples = {
        "of K": x + K,
        "of -1": x - 1,
        "longer": np.zeros((8, L + 1), int),
        "of floats": x * 1.0,
        "none": x[:0],
        "fewer than a batch": x[:2],
    }
    for case, array in examples.items():
        source = [{"x": row} for row in array]
        yield Fault("data", f"examples {case}", lambda s=source: returning(OwnData, "open", s), "")
    maps = {"None": None, "floats": {"x": x[0] * 0.5}, "no x": {"y": x[0]}, "K": {"x": x[0] + K}}
    for case, example in maps.items():
        yield Fault(
            "data", f"random_map returns {case}", lambda e=example: returning(OwnData, "random_map", e), ""
        )


def faults() -> Iterator[Fault]:
    yield from optimizers()
    yield from rates()
    yield from times()
    yield from networks()
    yield from heads()
    yield from losses()
    yield from processes_of_ones_own()
    yield from schedules()
    yield from data()


def outcome(fault: Fault, folder: Path) -> tuple[str, str]:
    """Says what came of a training with a part that does something wrong, and how: see `OUTCOMES`."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            config = get_config(**{fault.part.partition(".")[0]: fault.make()})
            run = runs.train(config, folder)
    except UserError as error:
        message = str(error)
        if " in a row)" in message:
            return ("marked" if fault.word in ("finite", "p_t", "t ") else "unclear"), message[:250]
        is_clear = fault.word in message and "\n" not in message and not fault.is_legal
        return ("clear" if is_clear else "unclear"), message[:250]
    except Exception as error:
        # An error of the user's own code stays what it is: commands make a line of it.
        is_own = fault.case == "fails" and not raised_here(error)
        return ("clear" if is_own else "unclear"), f"{type(error).__name__}: {str(error)[:250]}"
    warned = [line for line in said.getvalue().splitlines() if line.startswith("warning:")]
    if fault.is_legal:
        return ("unclear" if warned else "legal"), " ".join(warned)
    if any(not np.isfinite(x).all() for x in jax.tree.leaves(run.parts.state.params)):
        return "NaN", ""
    is_said = len(warned) == 1 and fault.word in warned[0]
    return ("said" if is_said else "silent"), " ".join(warned)


def calls(wanted: Callable[[Fault], bool] = lambda fault: True) -> Iterator[tuple[str, str, str]]:
    """Yields what came of each training that is wanted, which one it was, and how it ended."""
    for fault in faults():
        if wanted(fault):
            with tempfile.TemporaryDirectory() as folder:
                kind, how = outcome(fault, Path(folder) / "run")
            yield kind, f"{fault.part}: {fault.case}", how


def main() -> None:
    """Prints each defect and the number of outcomes of each kind."""
    names = sys.argv[1:]
    warnings.simplefilter("ignore")
    counts = collections.Counter()
    for kind, which, how in calls(lambda fault: not names or fault.part in names):
        counts[kind] += 1
        if kind in DEFECTS or "-v" in names:
            print(f"{kind:8} {which} {how}", flush=True)
    print("own parts:", ", ".join(f"{counts[kind]} {kind}" for kind in OUTCOMES))


if __name__ == "__main__":
    main()
