"""Processes by place: every kernel equals the same kernel of each column's own process, in float64."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import beliefs, config, losses, posteriors, sampling
from d3pm_jax.compat import official_images
from d3pm_jax.processes import Process
from d3pm_jax.sampling import laws
from d3pm_jax.show.curves import save_schedules
from tests.sampling import rules
from tests.sampling.cases import make_process

SIZES = (2, 3, 5, 3)  # categories of each column; two of one size have each a pi of their own
BETA = np.array([0.15, 0.3, 0.5, 1.0])
GAMMA = np.array([0.6, 0.3, 0.18, 0.09])
T = 4
B = 3
ROUNDING = {np.float64: 1e-12, np.float32: 2e-5}

pytestmark = pytest.mark.filterwarnings("ignore:x_T still depends")


def make_pi(size: int, place: int) -> np.ndarray:
    """Random probabilities; the last column has a category that noise never draws."""
    pi = np.random.default_rng(place).dirichlet(np.ones(size)) + 0.02
    if place == len(SIZES) - 1:
        pi[1] = 0
    return pi / pi.sum()


FAMILIES: dict[str, Callable[[int, int], Process]] = {
    "uniform": lambda size, place: d3pm.uniform(BETA, size),
    "marginal": lambda size, place: d3pm.marginal(BETA, make_pi(size, place)),
    "absorbing": lambda size, place: d3pm.absorbing(BETA, size + 1, size),
    "masked marginal": lambda size, place: d3pm.masked(d3pm.marginal(BETA, make_pi(size, place)), GAMMA),
}


class Columns(NamedTuple):
    """Holds a process by place, and that of each column."""

    process: Process
    each: list[Process]
    has_mask: bool

    @property
    def K(self) -> int:
        return self.process.K


def make_columns(family: str, places: tuple[int, ...] | None = None) -> Columns:
    each = [FAMILIES[family](size, place) for place, size in enumerate(SIZES)]
    return Columns(d3pm.by_place(each, places), each, family not in ("uniform", "marginal"))


def take_elements(columns: Columns, x: Any, place: int) -> Any:
    """What a column holds, as its own process counts: its mask is its last category."""
    x = np.asarray(x)[..., place]
    if columns.has_mask and np.issubdtype(x.dtype, np.integer):
        return np.where(x == columns.K - 1, SIZES[place], x)
    return x


def own_categories(columns: Columns, place: int) -> list[int]:
    return [*range(SIZES[place]), *([columns.K - 1] if columns.has_mask else [])]


# ---- Every kernel that takes a process ----

KERNELS = (beliefs, posteriors, losses.variational, losses.cross_entropy, laws, official_images)
# Not of elements or rows of each place on their own.
OTHERS = {
    "stochastic_bound": "sums over places",
    "vb_bits": "sums over places",
    "prior_bits": "sums over places",
    "most_remasked": "of the levels of all places",
}
METHODS = ("log_q_probs", "log_q_back", "log_q_x0", "log_push", "draw_q", "draw_step", "draw_prior")
# Families that a law is not for.
ONLY_FOR = {
    "remask_logits": ("absorbing",),
    "keep_logits": ("uniform", "marginal", "absorbing"),
    "renoise_logits": ("uniform", "marginal", "absorbing"),
    "corrector_log_rates": ("uniform", "marginal", "absorbing"),
    "score_log_rates": ("uniform", "marginal", "absorbing"),
    "tweedie_logits": ("uniform", "marginal", "absorbing"),
}
ROWS = (
    "logits",
    "logits_x0",
    "logits_loo",
    "logits_denoiser",
    "logits_prev",
    "log_denoiser",
    "log_p",
    "log_scores",
)
ELEMENTS = ("x0", "xt", "x", "u", "u_low", "sigma")
OPTIONS = {"ce_weight": 0.1, "smoothing": 0.3, "c": 0.7, "kappa": 0.6, "h": 0.2, "eps": 1e-6}


def list_kernels() -> dict[str, Callable[..., Any]]:
    """Every declared function of the kernels whose first argument is a process, by name, and its methods."""
    kernels: dict[str, Callable[..., Any]] = {}
    for module in KERNELS:
        for name, f in vars(module).items():
            if getattr(f, "__module__", None) != module.__name__ or not hasattr(f, "declaration"):
                continue
            if next(iter(inspect.signature(f).parameters)) == "process":
                kernels[name] = f
    for name in METHODS:
        kernels[name] = method(name)
    return kernels


def method(name: str) -> Callable[..., Any]:
    """A method as a function of the process."""

    def call(process, *args, **kwargs):
        return getattr(process, name)(*args, **kwargs)

    call.__signature__ = inspect.signature(getattr(Process, name))  # pyright: ignore
    return call


class Call(NamedTuple):
    """Holds a kernel and what it is called with, by name: arrays by place, and what is the same for all."""

    f: Callable[..., Any]
    arrays: dict[str, np.ndarray]
    options: dict[str, Any]


def make_calls(
    family: str, columns: Columns, belief_names: tuple, shape: tuple[int, ...], t_shape: tuple[int, ...]
) -> dict[str, Call]:
    """A call of each kernel, once with each belief, of elements [*shape]."""
    rng = np.random.default_rng(1)
    K = columns.K
    sizes = np.broadcast_to(np.array(SIZES).reshape(columns.process.places), shape)
    x0 = rng.integers(0, sizes)
    xt = rng.integers(0, sizes)
    if columns.has_mask:
        xt = np.where(rng.random(shape) < 0.5, K - 1, xt)
    t = rng.integers(1, T, t_shape)
    logits = 2 * rng.normal(size=(*shape, K))  # a network says something of what a place cannot be, too
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    arrays = {
        "x0": x0,
        "xt": xt,
        "x": x0,
        "u": rng.random(shape),
        "u_low": rng.random(shape),
        "sigma": 0.02 * rng.random(shape),
        "t": t,
        "s": np.maximum(t - 1, 1),
        "logits": logits,
        "log": log_p,
    }
    calls = {}
    for name, f in list_kernels().items():
        short = name.rsplit(".", 1)[-1]
        if short in OTHERS or family not in ONLY_FOR.get(short, FAMILIES):
            continue
        parameters = inspect.signature(f).parameters
        of_call = {}
        for key in parameters:
            if key in ROWS:
                of_call[key] = arrays["log" if key.startswith("log_") else "logits"]
            elif key in arrays:
                of_call[key] = arrays[key]
        if short == "renoise_logits":
            of_call["t"], of_call["s"] = of_call["s"], of_call["t"]
        options = {key: value for key, value in OPTIONS.items() if key in parameters}
        if "mask_id" in parameters:
            options["mask_id"] = K - 1 if columns.has_mask else None
        unknown = parameters.keys() - of_call.keys() - options.keys() - {"process", "self", "belief"}
        assert not unknown, f"{name}: no value for {unknown}"
        if "belief" not in parameters:
            calls[name] = Call(f, of_call, options)
            continue
        for belief in belief_names:
            calls[f"{name} {belief}"] = Call(f, of_call, options | {"belief": belief})
    return calls


@functools.partial(jax.jit, static_argnames=("functions", "differentiate"))
def call_all(process: Process, functions: tuple, arrays: list[dict], weights: Any, differentiate: bool):
    """What each returns, and the gradient of its weighted finite entries by its rows."""
    results = []
    for f, of_call in zip(functions, arrays, strict=True):
        rows = {key: x for key, x in of_call.items() if key in ROWS}
        rest = {key: x for key, x in of_call.items() if key not in ROWS}
        if not rows or not differentiate:
            results.append((f(process, **of_call), {}))
            continue

        def total(rows, f=f, rest=rest):
            value = f(process, **rows, **rest)
            parts = jax.tree.leaves(value)
            return sum(
                jnp.sum(jnp.where(jnp.isfinite(x), x * _weight(weights, x), 0))
                for x in parts
                if jnp.issubdtype(x.dtype, jnp.floating)
            ) + jnp.zeros(()), value

        gradient, value = jax.grad(total, has_aux=True)(rows)
        results.append((value, gradient))
    return results


def _weight(weights: Any, x: Any) -> Any:
    return weights["rows"] if x.shape == weights["rows"].shape else weights["elements"]


def check_calls(
    family: str,
    belief_names: tuple[str, ...],
    batch: tuple[int, ...],
    t_axes: int,
    places: tuple[int, ...] = (len(SIZES),),
    dtype: Any = np.float64,
    differentiate: bool = True,
) -> None:
    """Compares every call with that of each column.

    Args:
        family: of the processes.
        belief_names: of what logits are taken for.
        batch: axes in front of the places.
        t_axes: how many axes of x the steps have.
        places: the shape of the places.
        dtype: of the logits.
        differentiate: whether gradients are compared.
    """
    columns = make_columns(family, places)
    shape = (*batch, *places)
    calls = make_calls(family, columns, belief_names, shape, shape[:t_axes])
    functions = tuple(_Options(call.f, tuple(call.options.items())) for call in calls.values())
    rng = np.random.default_rng(2)
    weights = {"rows": rng.normal(size=(*shape, columns.K)), "elements": rng.normal(size=shape)}
    arrays = [{key: _cast(x, dtype) for key, x in call.arrays.items()} for call in calls.values()]
    together = call_all(columns.process, functions, arrays, _cast_all(weights, dtype), differentiate)

    in_line = functools.partial(_flatten_places, batch=batch, num_places=len(places))
    tolerance = ROUNDING[dtype]
    for place, process in enumerate(columns.each):
        own = own_categories(columns, place)

        def take(key: str, x: Any, place: int = place, own: list[int] = own) -> Any:
            if key in ("t", "s"):
                # Steps of some axes of the places are those of all behind.
                if x.ndim <= len(batch):
                    return x
                trailing = (1,) * (len(shape) - x.ndim)
                x = np.broadcast_to(x.reshape(x.shape + trailing), shape)
                return in_line(x)[..., place]
            if key in ROWS or key == "rows":
                return in_line(x)[..., place, :][..., own]
            return take_elements(columns, in_line(x), place)

        mask = {"mask_id": SIZES[place]} if columns.has_mask else {}
        of_column = tuple(
            _Options(call.f, tuple({**call.options, **(mask if "mask_id" in call.options else {})}.items()))
            for call in calls.values()
        )
        alone = call_all(
            process,
            of_column,
            [{key: _cast(take(key, x), dtype) for key, x in of_call.items()} for of_call in arrays],
            _cast_all({key: take(key, x) for key, x in weights.items()}, dtype),
            differentiate,
        )
        for name, (value, gradient), (own_value, own_gradient) in zip(calls, together, alone, strict=True):
            for x, expected in zip(jax.tree.leaves(value), jax.tree.leaves(own_value), strict=True):
                x = in_line(np.asarray(x))
                is_rows = x.ndim > len(batch) + 1
                taken = x[..., place, :][..., own] if is_rows else take_elements(columns, x, place)
                np.testing.assert_allclose(
                    taken, expected, rtol=tolerance, atol=tolerance, err_msg=f"{name} of column {place}"
                )
                if is_rows:
                    beyond = np.delete(x[..., place, :], own, axis=-1)
                    assert np.all(beyond == -np.inf), f"{name}: column {place} may be what it is not"
            for key, x in gradient.items():
                x = in_line(np.asarray(x))[..., place, :]
                np.testing.assert_allclose(
                    x[..., own],
                    own_gradient[key],
                    rtol=tolerance,
                    atol=tolerance,
                    err_msg=f"gradient of {name} of column {place}",
                )
                assert np.all(np.delete(x, own, axis=-1) == 0), f"gradient of {name} of column {place}"


class _Options(NamedTuple):
    """A kernel with options, equal to another of the same: so that `jit` knows it again."""

    f: Callable[..., Any]
    options: tuple[tuple[str, Any], ...]

    def __call__(self, process: Process, **arrays: Any) -> Any:
        return self.f(process, **arrays, **dict(self.options))


def _cast(x: Any, dtype: Any) -> Any:
    if np.issubdtype(np.asarray(x).dtype, np.floating):
        return np.asarray(x, dtype)
    return np.asarray(x, np.int32)


def _cast_all(arrays: dict[str, Any], dtype: Any) -> dict[str, Any]:
    return {key: _cast(x, dtype) for key, x in arrays.items()}


def _flatten_places(x: Any, batch: tuple[int, ...], num_places: int) -> Any:
    """Places as one axis."""
    return x.reshape(*batch, len(SIZES), *x.shape[len(batch) + num_places :])


# All beliefs of one family and gradients of each, steps of each axis, places of two axes, elements without a
# batch, and few digits: each once.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "belief_names", "arguments"),
    [
        ("marginal", get_args(beliefs.Belief), {"batch": (B,), "t_axes": 1, "differentiate": False}),
        ("uniform", ("d3pm",), {"batch": (B,), "t_axes": 2, "places": (2, 2)}),
        ("absorbing", ("denoiser",), {"batch": (), "t_axes": 0}),
        ("masked marginal", ("official", "leave_one_out"), {"batch": (B,), "t_axes": 3, "places": (2, 2)}),
    ],
)
def test_kernels_are_those_of_each_column(family, belief_names, arguments, x64):
    check_calls(family, belief_names, **arguments)


@pytest.mark.slow
def test_kernels_are_those_of_each_column_in_float32():
    check_calls("marginal", ("denoiser",), (B,), 1, dtype=np.float32, differentiate=False)


# ---- Against matrices in NumPy ----


@jax.jit
def call_members(process, log_p, logits, x0, xt, t):
    return {
        "log_q_probs": process.log_q_probs(x0, t),
        "log_q_back": process.log_q_back(xt, t),
        "log_q_x0": process.log_q_x0(xt, t),
        "log_push": process.log_push(log_p, t),
        "log_prior": process.log_prior(),
        "q_posterior": d3pm.q_posterior(process, x0, xt, t),
        "p_logits": d3pm.p_logits(process, logits, xt, t, "leave_one_out"),
        "posterior_kl": d3pm.posterior_kl(process, logits, x0, xt, t),
        "prior_kl": d3pm.prior_kl(process, x0),
    }


@pytest.mark.parametrize("family", ["marginal", pytest.param("masked", marks=pytest.mark.slow)])
def test_members_and_a_step_are_those_of_the_matrices(family, x64):
    name = family + rules.BY_PLACE
    world = rules.make_world(name)
    process = make_process(name)
    states = rules.all_states(3, world.K)
    is_data = rules.pick(world.is_data, states).all(-1)
    x0 = states[is_data]  # each state once, and at each step
    t = np.repeat(np.arange(1, T + 1), len(x0))
    x0 = np.tile(x0, (T, 1))
    xt = np.roll(x0, 1, axis=0)
    if world.has_mask:
        xt = np.where(np.arange(len(xt))[:, None] % (2, 3, 5) == 0, world.mask, xt)
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(*x0.shape, world.K))
    p = np.where(world.is_data, np.exp(logits), 0)
    p /= p.sum(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        log_p = np.log(p)
    computed = call_members(process, log_p, logits, *(np.asarray(x, np.int32) for x in (x0, xt, t)))
    Q, Qbar, before = (matrices[t] for matrices in (world.Q, world.Qbar, np.roll(world.Qbar, 1, axis=0)))
    place = np.arange(3)
    rows = (np.arange(len(t))[:, None], place)
    step = np.moveaxis(Q, -1, -2)[(*rows, xt)]
    q_posterior = normalised(step * before[(*rows, x0)])
    p_previous = normalised(step * np.einsum("blk,blkj->blj", p, before))
    if world.has_mask:
        # A mask is no x_0, but a network may say something of it, which counts unless the head forbids it.
        own = np.where(world.is_data | (np.arange(world.K) == world.mask), np.exp(logits), 0)
        p_previous = normalised(step * np.einsum("blk,blkj->blj", normalised(own), before))
    prior = np.broadcast_to(world.prior, q_posterior.shape)
    expected = {
        "log_q_probs": Qbar[(*rows, x0)],
        "log_q_back": step,
        "log_q_x0": np.moveaxis(Qbar, -1, -2)[(*rows, xt)],
        "log_push": np.einsum("blk,blkj->blj", p, Qbar),
        "log_prior": world.prior,
        "q_posterior": q_posterior,
        "p_logits": p_previous,
    }
    # What a place cannot be has no column in the library: the identity of the matrices stays out of it.
    can_be = world.is_data | (world.has_mask & (np.arange(world.K) == world.mask))
    for key, value in expected.items():
        actual = np.exp(computed[key])
        np.testing.assert_allclose(actual, np.where(can_be, value, 0), atol=1e-12, err_msg=key)
        assert np.all(actual[..., ~can_be] == 0), key
    possible = q_posterior.sum(-1) > 0
    np.testing.assert_allclose(
        computed["posterior_kl"][possible], kl(q_posterior, p_previous)[possible], atol=1e-12
    )
    np.testing.assert_allclose(computed["prior_kl"], kl(world.Qbar[T][place, x0], prior), atol=1e-12)


def normalised(p: np.ndarray) -> np.ndarray:
    total = p.sum(-1, keepdims=True)
    return np.divide(p, total, out=np.zeros_like(p), where=total > 0)


def kl(q: np.ndarray, p: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(q > 0, q * (np.log(q) - np.log(p)), 0).sum(-1)


# ---- What a place cannot be ----

MANY = 10**6


@functools.partial(jax.jit, static_argnames="family")
def draw_everything(process, logits, x0, xt, t, u, family):
    """Categories that every drawing function takes, of a network that says something of every category."""
    log_denoiser = beliefs.denoiser_of(process, logits, xt, t, "leave_one_out")
    logs = {
        "denoiser": log_denoiser,
        "psi": laws.mixture_logits(process, logits, log_denoiser, xt, t, 0.5),
        "gibbs": laws.gibbs_logits(process, logits, xt, t),
        "euler": laws.euler_logits(laws.log_rates(process, logits, xt, t, t - 1), xt),
        "poisson": laws.poisson_logits(laws.log_rates(process, logits, xt, t, t - 1), xt),
    }
    if not family.startswith("masked"):
        logs["keep"] = laws.keep_logits(process, log_denoiser, xt, t, t - 1, 0.5)
        logs["renoise"] = laws.renoise_logits(process, x0, t - 1, t)
    return {
        "draw_q": process.draw_q(x0, t, u),
        "draw_step": process.draw_step(xt, t, u),
        "draw_prior": process.draw_prior(u),
        "p_sample": d3pm.p_sample(process, logits, xt, t, u),
        **{name: d3pm.categorical(law, u) for name, law in logs.items()},
    }


@pytest.mark.slow
@pytest.mark.parametrize("family", ["marginal", "absorbing", "masked marginal"])
def test_what_a_place_cannot_be_is_never_drawn(family):
    """In float32, the ends of the noise among a million uniforms of each drawing function."""
    columns = make_columns(family)
    n = MANY // len(SIZES)
    rng = np.random.default_rng(3)
    u = rng.random((n, len(SIZES)), np.float32)
    u[:2] = [[0.0], [np.nextafter(np.float32(1), np.float32(0))]]
    x0 = rng.integers(0, SIZES, u.shape)
    xt = rng.integers(0, SIZES, u.shape)
    if columns.has_mask:
        xt = np.where(rng.random(u.shape) < 0.5, columns.K - 1, xt)
    t = rng.integers(1, T, n)
    logits = rng.normal(size=(n, len(SIZES), columns.K)).astype(np.float32)
    for name, x in draw_everything(columns.process, logits, x0, xt, t, u, family).items():
        for place in range(len(SIZES)):
            assert set(np.unique(x[:, place])) <= set(own_categories(columns, place)), f"{name}, {place}"


X0 = np.array([[1, 2, 4, 0], [0, 1, 2, 2]])


def test_a_category_that_a_place_has_not_is_named_or_marked():
    process = make_columns("absorbing").process
    wrong = X0.copy()
    wrong[1, 0] = 2  # of 2 categories; the mask is 5
    t = np.array([1, 2])
    said = r"x0 contains 2 at place \[0\], outside 0\.\.1: the process has 2 categories there"
    with pytest.raises(ValueError, match=said):
        d3pm.prior_kl(process, wrong)
    with pytest.raises(ValueError, match=said):
        process.log_q_probs(jnp.asarray(wrong), t)
    masked = X0.copy()
    masked[1, 0] = 5
    d3pm.prior_kl(process, masked)

    u = np.full(X0.shape, 0.5, np.float32)
    kl, drawn = jax.jit(lambda x0, t: (d3pm.prior_kl(process, x0), d3pm.q_sample(process, x0, t, u)))(
        wrong, t
    )
    is_wrong = np.zeros(X0.shape, bool)
    is_wrong[1, 0] = True
    np.testing.assert_array_equal(np.isnan(kl), is_wrong)
    np.testing.assert_array_equal(np.asarray(drawn) == -1, is_wrong)


def test_known_elements_that_a_place_has_not_are_named():
    columns = make_columns("absorbing")
    denoiser = d3pm.Denoiser(columns.process, lambda x, t: jnp.zeros((*x.shape, columns.K)))
    known = sampling.Known(jnp.asarray([[0, 3, 0, 0]]), jnp.ones((1, 4), bool))
    with pytest.raises(ValueError, match=r"known\.x0 contains 3 at place \[1\], outside 0\.\.2"):
        d3pm.sample(jax.random.key(0), denoiser, (1, 4), known=known)


# ---- What cannot be by place ----


def of_sizes(*sizes: int) -> list[Process]:
    return [d3pm.uniform(BETA, size) for size in sizes]


Q = np.stack([np.full((3, 3), 1 / 3)] * T)
REFUSED = {
    "dense": (
        lambda: d3pm.by_place([d3pm.dense(Q)]),
        r"processes\[0\] is Dense: places have uniform, marginal",
    ),
    "gaussian": (
        lambda: d3pm.by_place([*of_sizes(3), d3pm.gaussian(BETA, 3)]),
        r"processes\[1\] is Dense: .* give all places one K",
    ),
    "a mask on matrices": (
        lambda: d3pm.by_place([d3pm.masked(d3pm.dense(Q), GAMMA)]),
        r"processes\[0\] is Masked: .* or a mask on top of one",
    ),
    "order": (
        lambda: d3pm.by_place([d3pm.autoregressive(4, 3, 2)]),
        r"processes\[0\] is Autoregressive: places have",
    ),
    "by place": (
        lambda: d3pm.by_place([d3pm.by_place(of_sizes(2))]),
        r"processes\[0\] is ByPlace: places have",
    ),
    "steps": (
        lambda: d3pm.by_place([*of_sizes(2), d3pm.uniform(BETA[1:], 3)]),
        r"processes\[1\] has T = 3, processes\[0\] has 4: give all the same steps",
    ),
    "a mask of some": (
        lambda: d3pm.by_place([*of_sizes(2), d3pm.absorbing(BETA, 3, 2)]),
        r"of processes\[1\] and processes\[0\] only one has a mask: give every place one, or none",
    ),
    "a mask of the data": (
        lambda: d3pm.by_place([d3pm.absorbing(BETA, 3, 0)]),
        r"processes\[0\] masks with category 0: the mask of a place has to be its last category, 2",
    ),
    "schedules": (
        lambda: d3pm.by_place([d3pm.absorbing(BETA, 3, 2), d3pm.absorbing(np.sqrt(BETA), 3, 2)]),
        r"processes\[1\] has another schedule than processes\[0\]: with one mask for all give all places the",
    ),
    "number": (
        lambda: d3pm.by_place(of_sizes(2, 3), (3,)),
        r"2 processes for places \[3\]: pass one for each place",
    ),
    "none": (lambda: d3pm.by_place([]), r"0 processes for places \[0\]: pass one for each place"),
    "other places": (
        lambda: d3pm.prior_kl(d3pm.by_place(of_sizes(2, 3)), jnp.zeros((5, 3), jnp.int32)),
        r"x0 has shape \[5, 3\], but the process is of places \[2\]: these have to be the last axes of x",
    ),
    "Q": (
        lambda: d3pm.by_place(of_sizes(2, 3)).Q(jnp.asarray(1)),
        r"Q\(t\) of a process by place is another matrix at each place: log_q_back\(xt, t\)",
    ),
    "Qbar": (
        lambda: d3pm.by_place(of_sizes(2, 3)).Qbar(jnp.asarray(1)),
        r"Qbar\(t\) of a process by place is another matrix at each place: log_q_probs\(x0, t\)",
    ),
    "a picture": (
        lambda: save_schedules(Path("none.png"), {"": d3pm.by_place(of_sizes(2, 3))}),
        r"save_schedules draws one process, and ByPlace has one for each place: pass these, one by one",
    ),
    "a category for a mask": (
        lambda: d3pm.smoothed_cross_entropy(
            d3pm.by_place(of_sizes(2, 3)), jnp.zeros((1, 2, 3)), jnp.zeros((1, 2), jnp.int32), 0.1, 0
        ),
        r"mask_id = 0: places have one mask, the last category, K - 1 = 2, where their processes have one",
    ),
    "a mask on top": (
        lambda: d3pm.masked(d3pm.by_place(of_sizes(2, 3)), GAMMA),
        r"a mask goes on top of one process, and ByPlace has one for each place: pass these, one by one",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_for_places_says_so_in_a_line(name):
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)


# ---- Bounds ----


def network_of_columns(columns: Columns, table: np.ndarray) -> Callable[..., Any]:
    """Logits of each column from its own x_t and t alone: table [T + 1, K, D, K]."""

    def network(x, t):
        return jnp.stack([jnp.asarray(table)[t, x[:, place], place] for place in range(x.shape[1])], axis=1)

    return network


@pytest.mark.slow
def test_a_bound_is_the_sum_of_those_of_the_columns(x64):
    """Of a network that looks at each column alone, from the same noise; its terms are tested above."""
    columns = make_columns("masked marginal")
    K = columns.K
    rng = np.random.default_rng(5)
    table = rng.normal(size=(T + 1, K, len(SIZES), K))
    if columns.has_mask:
        table[..., K - 1] = -np.inf
    x0 = rng.integers(0, SIZES, (6, len(SIZES)))
    u = rng.random((T + 1, *x0.shape))
    noise = jnp.asarray(u)

    def bound(process, network, x0, noise):
        return d3pm.all_t_bound(network, process, x0, lambda t: noise[t], belief="leave_one_out")

    together = bound(columns.process, network_of_columns(columns, table), x0, noise)
    steps, prior = np.zeros(together.steps.shape), np.zeros(len(x0))
    for place, process in enumerate(columns.each):
        own = own_categories(columns, place)
        of_column = Columns(process, [process], columns.has_mask)
        own_table = table[:, own][:, :, [place]][..., own]
        alone = bound(process, network_of_columns(of_column, own_table), x0[:, [place]], noise[:, :, [place]])
        steps += alone.steps
        prior += alone.prior
    np.testing.assert_allclose(together.steps, steps, atol=1e-12)
    np.testing.assert_allclose(together.prior, prior, atol=1e-12)


@pytest.mark.slow
def test_few_calls_of_a_bound_have_the_mean_of_all(x64):
    """One step for each stratum of one step is every step."""
    columns = make_columns("absorbing")
    table = np.random.default_rng(5).normal(size=(T + 1, columns.K, len(SIZES), columns.K))
    table[..., columns.K - 1] = -np.inf
    network = network_of_columns(columns, table)
    u = jnp.asarray(np.random.default_rng(6).random((T + 1, *X0.shape)))
    every = d3pm.all_t_bound(network, columns.process, X0, lambda t: u[t], belief="leave_one_out")
    strata = d3pm.strata_bound(
        network, columns.process, X0, u[:T, :, 0], lambda j: u[j], belief="leave_one_out"
    )
    np.testing.assert_allclose(strata, every.total(), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["absorbing", "masked marginal"])
def test_fewer_steps_and_a_stack_of_processes_are_those_of_each_column(family, x64):
    """Two grids of a process, stacked and mapped over as one process."""
    columns = make_columns(family)
    short = columns.process.respaced([2, 4])
    u = jnp.asarray(np.random.default_rng(8).random(X0.shape))
    t = jnp.asarray([[1, 2], [2, 1]])  # [2, B]
    x0 = jnp.stack([X0, X0[::-1]])
    stack = jax.tree.map(lambda a, b: jnp.stack([a, b]), short, columns.process.respaced([1, 4]))
    mapped = jax.vmap(d3pm.q_sample)(stack, x0, t, jnp.stack([u, u]))
    for row, grid in enumerate(([2, 4], [1, 4])):
        for place, process in enumerate(columns.each):
            own_x0 = jnp.asarray(take_elements(columns, x0[row], place))
            drawn = d3pm.q_sample(process.respaced(grid), own_x0, t[row], u[:, place])
            np.testing.assert_array_equal(take_elements(columns, mapped[row], place), drawn)


@pytest.mark.slow
def test_the_chain_rule_by_place_is_that_of_the_conditionals_of_each_column(x64):
    """Of a network that sees how many elements are known, so that the order matters."""
    K = max(SIZES) + 1
    table = np.random.default_rng(9).normal(size=(len(SIZES) + 1, len(SIZES), K))
    logits = d3pm.heads.forbid_beyond(jnp.asarray(table), np.array(SIZES))
    order = jnp.asarray(np.random.default_rng(10).random(X0.shape))

    def fill_in(xt):
        return logits[jnp.sum(xt != K - 1, axis=1)]

    nats = d3pm.chain_rule(fill_in, X0, order, K - 1)
    for b, ranks in enumerate(np.argsort(np.argsort(order, axis=1), axis=1)):
        for place, rank in enumerate(ranks):
            own = table[rank, place, : SIZES[place]]
            expected = np.log(np.exp(own).sum()) - own[X0[b, place]]
            np.testing.assert_allclose(nats[b, place], expected, rtol=1e-12)


@pytest.mark.slow
def test_objectives_in_continuous_time_are_those_of_each_column(x64):
    alpha = config.Reciprocal()
    cases = {
        "uniform": config.ContinuousUniform(alpha),
        "absorbing": config.ContinuousAbsorbing(alpha),
    }
    rng = np.random.default_rng(7)
    x0 = jnp.asarray(rng.integers(0, SIZES, (B, len(SIZES))))
    u = jnp.asarray(rng.random(x0.shape))
    time = jnp.asarray([0.7, 2.3, 3.9])
    p_t = jnp.full(B, 0.25)
    for family, objective in cases.items():
        each = [
            d3pm.uniform(d3pm.reciprocal(T), size)
            if family == "uniform"
            else d3pm.absorbing(d3pm.reciprocal(T), size + 1, size)
            for size in SIZES
        ]
        columns = Columns(d3pm.by_place(each), each, family == "absorbing")
        objective.check_process(columns.process)
        logits = rng.normal(size=(*x0.shape, columns.K))
        if columns.has_mask:
            logits[..., -1] = -np.inf
        xt = objective.draw(columns.process, x0, time, u)
        terms = objective.terms(columns.process, jnp.asarray(logits), x0, xt, time, p_t)
        for place, process in enumerate(each):
            own_logits = jnp.asarray(logits[:, place][:, own_categories(columns, place)])
            own_xt = objective.draw(process, x0[:, place], time, u[:, place])
            np.testing.assert_array_equal(take_elements(columns, xt, place), own_xt)
            own_terms = objective.terms(process, own_logits, x0[:, place], own_xt, time, p_t)
            for x, expected in zip(terms, own_terms, strict=True):
                np.testing.assert_allclose(x[:, place], expected, rtol=1e-12, atol=1e-12)
