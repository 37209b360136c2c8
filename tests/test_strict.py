"""Every public kernel under the settings of JAX that find mistakes: nothing raises, and nothing changes.

The functions and their arguments are those of `tests.checks.table`, which takes them from the modules: a new
function is called here at once, and fails where the arguments of the table are not legal for it. Named
samplers and guidance come to them.

Strict dtype promotion asks of whoever calls that the numbers of a call have one float type. Logits may have
another one: they come from networks.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import sampling
from d3pm_jax.processes import Process
from d3pm_jax.sampling import Sampler, Shaping, guidance
from tests.checks import table
from tests.checks.table import K, S
from tests.sampling import rules
from tests.sampling.cases import CASES, make_process

pytestmark = pytest.mark.filterwarnings("ignore:x_T still depends")

# Of functions that call those of the other modules, and of the families through them alone.
LOOPS = ("likelihood.", "sampling.", "enumeration.")
# What is made of logits, and may be of their type.
LIKE_LOGITS = {("Process.log_push", "log_p"), ("numerics.categorical", "log_p")}
# `value_and_gradient` takes gradients of these.
DIFFERENTIABLE = ("floats", "matrix")
# What takes long is done with one family of each class; the others are traced.
ONE_OF_EACH_CLASS = ("uniform", "dense", "masked")
X = np.array([[0, 1, 2], [2, 1, 0]])


class Arrays(NamedTuple):
    """Holds a call as a function of its arrays."""

    name: str
    f: Callable[..., Any]
    arrays: dict[str, Any]
    differentiable: tuple[str, ...] = ()


@contextlib.contextmanager
def strict() -> Iterator[None]:
    """Has JAX raise wherever it can, leaks of tracers apart, and multiply as precisely as it can."""
    with (
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
        jax.debug_nans(True),
        jax.default_matmul_precision("highest"),
    ):
        yield


def as_floats(x: Any) -> jax.Array:
    """Returns numbers in the float type of JAX at the time."""
    return jnp.asarray(np.asarray(x), float)


def random_logits(seed: int, K: int, dtype: Any) -> jax.Array:
    """Returns logits [*S, K], of which two are -inf, the one of x_0 of an element among them."""
    logits = np.random.default_rng(seed).normal(size=(*S, K)) * 3
    logits[0, 0, 1] = logits[0, 1, 1] = -np.inf
    return jnp.asarray(logits, dtype)


def make_denoise(K: int, dtype: Any) -> Callable[..., jax.Array]:
    """Makes a network of a table, whose logits depend on x and the time."""

    def denoise(x: Any, time: Any) -> jax.Array:
        rows = random_logits(0, K, dtype).reshape(-1, K)
        shift = 0.1 * time.astype(dtype)
        return rows[(2 * x + 1) % len(rows)] + shift[:, *[None] * x.ndim]

    return denoise


def arrays_of(call: table.Call, dtype: Any) -> Arrays:
    """Takes a call of the table apart: arrays and keys are traced, and logits are of this type."""
    arrays = {}
    others = {}
    for number, (name, role) in enumerate(call.roles.items()):
        good = call.good[name]
        is_logits = (
            "logits" in name or (call.name, name) in LIKE_LOGITS
        ) and call.name != "numerics.kl_logits"
        if name == "denoise":
            others[name] = make_denoise(K, dtype)
        elif name == "noise":
            others[name] = lambda t, stream=0: as_floats(table.UNIT)
        elif is_logits and np.shape(good) == (*S, K):
            # What the table forbids, a mask where it has to be, stays forbidden.
            arrays[name] = jnp.where(jnp.isneginf(good), -jnp.inf, random_logits(number, K, dtype))
        elif is_logits:
            arrays[name] = jnp.asarray(good, dtype)
        elif name.startswith(("log_p", "log_q")) and np.shape(good) == (*S, K):
            arrays[name] = jax.nn.log_softmax(random_logits(number, K, float))
        elif role in table.ARRAYS and table.ARRAYS[role] == "float":
            arrays[name] = as_floats(good)
        elif role in table.ARRAYS or role == "key":
            arrays[name] = good
        else:
            others[name] = good
    differentiable = tuple(name for name in arrays if call.roles[name] in DIFFERENTIABLE)
    return Arrays(call.name, functools.partial(call.f, **others), arrays, differentiable)


def functions(dtype: Any, families: Iterable[str] = tuple(table.PROCESSES)) -> Iterator[Arrays]:
    """Yields every public function with a uniform process, and those of a process with each other family."""
    processes = table.make_processes()
    for family in families:
        for call in table.public(processes[family]):
            knows_family = call.of_process and not call.name.startswith(LOOPS)
            if family == "uniform" or knows_family:
                arrays = arrays_of(call, dtype)
                yield arrays._replace(name=f"{call.name}, {family}")


def draw(sampler: Sampler, process: Process, denoise: Callable[..., Any]) -> Callable[..., Any]:
    def f(key: Any, x0: Any, known: Any) -> Any:
        denoiser = sampling.Denoiser(process, denoise)
        return sampling.sample(key, denoiser, S, sampler, known=sampling.Known(x0, known))

    return f


def samplers(dtype: Any) -> Iterator[Arrays]:
    """Yields a chain of every named sampler for every family that it is for, shaped and guided ones too."""
    arrays = {
        "key": jax.random.key(0),
        "x0": jnp.asarray(X % rules.MASK, jnp.int32),
        "known": table.UNIT < 0.3,
    }
    denoise = make_denoise(rules.K, dtype)
    for name, case in CASES.items():
        for family in case.names:
            yield Arrays(f"{name}, {family}", draw(case.sampler, make_process(family), denoise), arrays)
    for shaping in (
        Shaping(temperature=0.7, forbid=(0,), top_k=2, top_p=0.9),
        Shaping(top_p_below=0.9),
    ):
        f = draw(Sampler(shaping=shaping), make_process("uniform"), denoise)
        yield Arrays(f"{shaping}", f, arrays)
    for name, guided in guided_networks(denoise, dtype):
        yield Arrays(name, draw(Sampler(), make_process("uniform"), guided), arrays)


def guided_networks(denoise: Callable[..., Any], dtype: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    def of_label(x: Any, time: Any, label: Any) -> Any:
        return denoise(x, time) * label[:, *[None] * x.ndim].astype(dtype)

    def log_prob(one_hots: Any, time: Any) -> Any:
        return -jnp.sum(jnp.square(one_hots), axis=(1, 2)) * time.astype(one_hots.dtype)

    labels = jnp.arange(1, 3, dtype=jnp.int32)
    for on in ("x_s", "x_0"):
        yield on, guidance.classifier_free(of_label, labels, labels - 1, 1.5, on)
    for exact in (False, True):
        yield f"exact {exact}", guidance.by_classifier(denoise, log_prob, 1.5, exact)


def floats_of(tree: Any) -> list[jax.Array]:
    leaves = [x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array)]
    return [x for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]


def value_and_gradient(call: Arrays, arrays: dict[str, Any]) -> Any:
    """Returns what a call returns, and the gradient of the sum of its finite floats."""
    fixed = {name: x for name, x in arrays.items() if name not in call.differentiable}

    def total(differentiable: dict[str, Any]) -> Any:
        result = call.f(**fixed, **differentiable)
        if call.name.startswith("sampling.per_example"):
            result = result(jnp.asarray(1, jnp.int32))
        sums = [jnp.sum(jnp.where(jnp.isfinite(x), x, 0.0)).astype(float) for x in floats_of(result)]
        return sum(sums, as_floats(0.0)), result

    if not call.differentiable:
        return total({})[1]
    differentiable = {name: arrays[name] for name in call.differentiable}
    (_, result), gradient = jax.value_and_grad(total, has_aux=True)(differentiable)
    return result, gradient


def trace(call: Arrays) -> Any:
    """Traces a call, or makes it where nothing is traced: it is one of NumPy."""
    if not call.arrays:
        return value_and_gradient(call, {})
    return jax.eval_shape(functools.partial(value_and_gradient, call), call.arrays)


@contextlib.contextmanager
def named(call: Arrays) -> Iterator[None]:
    """Adds to an error of which call it is."""
    try:
        yield
    except Exception as error:
        error.add_note(call.name)
        raise


def trace_strictly(calls: Iterable[Arrays]) -> int:
    """Traces calls under strict settings, and counts them."""
    count = 0
    for call in calls:
        with strict(), named(call):
            trace(call)
        count += 1
    return count


def test_every_function_is_traced():
    """Values have no part in what is raised, but for NaN: that nothing is compiled makes it quick."""
    assert trace_strictly(functions(float)) > 280


def test_every_sampler_is_traced():
    """Each for one family; for all it is called with logits of another type."""
    of_one_family = {call.name.split(",")[0]: call for call in samplers(float)}
    assert trace_strictly(of_one_family.values()) > 20


def test_no_flat_name_is_left_out():
    called = {call.f for call in table.public(table.PROCESSES["uniform"])}
    # A denoiser only holds what its functions are called with.
    flat = {getattr(d3pm, name) for name in d3pm.__all__} - {d3pm.Denoiser}
    assert flat <= called


@pytest.mark.slow
def test_logits_may_be_of_another_type():
    trace_strictly(functions("bfloat16"))
    trace_strictly(samplers("bfloat16"))


@pytest.mark.slow
def test_all_is_of_64_bits_or_none(x64):
    trace_strictly(functions(float))
    trace_strictly(samplers(float))


@pytest.mark.slow
def test_no_tracer_is_left():
    """Looking for them takes six times as long as all the rest of a trace."""
    with jax.checking_leaks():
        trace_strictly(functions(float, ONE_OF_EACH_CLASS))


def run(call: Arrays) -> list[np.ndarray]:
    """Calls without jit around it, and returns all numbers of the result."""
    # A call that is made again is no reuse of its key.
    arrays = {name: jax.random.clone(x) if name == "key" else x for name, x in call.arrays.items()}
    leaves = jax.tree.leaves(value_and_gradient(call, arrays))
    return [np.asarray(x) for x in leaves if isinstance(x, jax.Array | np.ndarray | float)]


@pytest.mark.slow
def test_values_are_the_same_and_never_nan():
    """To the bit under all settings at once, of which each alone raises less; without jit to rounding."""
    for call in functions(float, (*ONE_OF_EACH_CLASS, "absorbing")):
        expected = run(call)
        with named(call):
            with strict():
                actual = run(call)
            for x, y in zip(actual, expected, strict=True):
                np.testing.assert_array_equal(x, y)
            if call.name.startswith(LOOPS):
                continue  # each operation of each step would be called on its own
            with jax.disable_jit():
                actual = run(call)
            for x, y in zip(actual, expected, strict=True):
                np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


# Rows of logits: certain, without a distribution, too far apart for a float, with what is ruled out, even.
ENDS = [[0, -np.inf, -np.inf, -np.inf], [-np.inf] * 4, [1e30, -1e30, 0, 0], [0, 1, -np.inf, 2], [0] * 4]


def at_ends(process: Process) -> Iterator[Arrays]:
    """Yields every function of logits, of which each row meets another pair of categories and step."""
    x0 = jnp.asarray([0, 1, 2, 3, 0], jnp.int32)
    ends = {
        "x0": x0,
        "x": x0,
        "xt": jnp.asarray([3, 1, 0, 3, 1], jnp.int32),
        "u": as_floats([0, 0.2, 0.5, 0.8, 0.9]),
    }
    for call in table.public(process):
        arrays = {name: ends.get(name) for name in call.roles if name not in ("process", "belief")}
        for name in arrays:
            if name in ("logits_x0", "logits_prev", "logits", "logits_loo", "logits_denoiser"):
                arrays[name] = as_floats(ENDS)
            if name == "t":
                arrays[name] = jnp.arange(1, 6, dtype=jnp.int32)
        if call.of_process and arrays and all(x is not None for x in arrays.values()):
            fixed = {name: call.good[name] for name in ("process", "belief") if name in call.roles}
            yield Arrays(call.name, functools.partial(call.f, **fixed), arrays)


def count_at_ends(process: Process, names: tuple[str, ...] = ("",)) -> int:
    """Calls those whose names begin so under `jax_debug_nans`: it must not raise where no result is NaN."""
    count = 0
    for call in at_ends(process):
        if not call.name.startswith(names):
            continue
        count += 1
        if any(np.isnan(x).any() for x in map(np.asarray, floats_of(call.f(**call.arrays)))):
            continue
        with jax.debug_nans(True), named(call):
            call.f(**call.arrays)
    return count


def test_a_nan_that_no_result_shows_is_none_inside():
    """Of a chain whose end keeps some of x_0, so that the prior KL is +inf."""
    absorbing = d3pm.absorbing(np.full(table.T, 0.2), K, K - 1)
    assert np.isposinf(np.asarray(d3pm.prior_kl(absorbing, jnp.asarray([0])))).all()
    names = ("losses.prior_kl", "losses.direct_kl", "losses.cross_entropy")
    assert count_at_ends(absorbing, names) == len(names)


@pytest.mark.slow
@pytest.mark.parametrize("family", table.make_processes())
def test_a_nan_that_no_result_shows_is_none_inside_for_any_family(family):
    assert count_at_ends(table.make_processes()[family]) > 20
