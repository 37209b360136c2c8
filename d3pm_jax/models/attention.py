"""Attends: softmax(q k^T / sqrt(d)) v, in the form that suits the device.

By the formula the scores [B, heads, L, L] of all places lie in memory. On GPUs and TPUs kernels of tokamax
(the extra `attention`) keep a block of them at a time: of a text of 1,024 places they are most of what a step
moves. A *form* is the name of such kernels, chosen when a network is built. CPUs take the formula, whatever
the form.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from importlib.util import find_spec
from typing import Any, Literal, get_args

import jax
import jax.extend.backend
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from d3pm_jax.errors import UserError, one_line
from d3pm_jax.extras import write_install
from d3pm_jax.numerics.kernel_check import compute_outside_a_trace, silence_deprecation
from d3pm_jax.numerics.logspace import at_least_float32

Form = Literal["mosaic", "triton", "cudnn", "xla"]
# The first that a device and a type allow is the fastest.
FORMS: tuple[Form, ...] = get_args(Form)
# Blocks of Mosaic on TPUs have so many places.
TPU_BLOCK = 128
# Kernels on GPUs serve heads of up to so many numbers,
WIDEST_HEAD = 256
# and of up to so many bytes, from a compute capability on: blocks of them lie in memory that cores share.
BYTES_OF_A_HEAD = ((12.0, 256), (9.0, 1024), (8.6, 256), (8.0, 512))
# Kernels of up to so many places are compared with the formula at that length. Of more places fewer are: this
# number and what the length is over a multiple of it, so that last blocks are as full.
FEW_PLACES = 512


def choose_form(wanted: Form | None, dtype: DTypeLike | None) -> Form:
    """Returns the form of attention for the default device of JAX and a type of activations.

    Args:
        wanted: the form that is asked for; None for the best one.
        dtype: of q, k and v; None is that of parameters, float32.

    Returns:
        "mosaic", "triton": kernels of tokamax, of which the second serve float32 and cards before the H100.
        "cudnn": attention of cuDNN, through JAX.
        "xla": no kernel: the formula, through JAX. On a CPU it is always this one, and without tokamax,
        unless another is asked for.

    Raises:
        ValueError: the device, the type or what is installed does not allow the form.
    """
    device = jax.extend.backend.get_default_device()
    if device.platform == "cpu":
        return "xla"
    dtype = jnp.dtype(dtype or jnp.float32)
    if wanted is not None:
        obstacle = _find_obstacle(wanted, device, dtype)
        if obstacle:
            raise ValueError(f"attention = {wanted!r}, but {obstacle}; leave it out, or pass 'xla'")
        return wanted
    if not _has_tokamax():
        return "xla"
    return next(form for form in FORMS if not _find_obstacle(form, device, dtype))


def _has_tokamax() -> bool:
    return find_spec("tokamax") is not None


def _find_obstacle(form: Form, device: Any, dtype: Any) -> str:
    """Says what keeps a device from a form of attention; "" where nothing does."""
    if form == "xla":
        return ""
    kind = device.device_kind
    is_tpu = device.platform == "tpu"
    capability = _find_capability(device)
    if form == "mosaic":
        # tokamax has none for TPUs before the fifth generation, and those for the B200 return float32.
        is_old_tpu = kind.startswith(("TPU v2", "TPU v3", "TPU v4"))
        serves = (is_tpu and not is_old_tpu) or 9.0 <= capability < 10.0
    else:
        serves = capability >= 8.0
    if not serves:
        return f"it does not serve {kind}"
    takes_float32 = form == "triton" or is_tpu
    if dtype not in (jnp.bfloat16, jnp.float16) and not (takes_float32 and dtype == jnp.float32):
        return f"on {kind} it takes no {dtype}: set compute='bfloat16'"
    if form != "cudnn" and not _has_tokamax():
        return f"tokamax is not installed: {write_install('attention')}, on Python 3.12 or newer"
    return ""


def _find_capability(device: Any) -> float:
    """Returns the compute capability of a device, 0 for others than NVIDIA's."""
    try:
        return float(getattr(device, "compute_capability", 0.0))
    except (TypeError, ValueError):
        # It is "gfx942" of an AMD MI300.
        return 0.0


def attend(
    q: Float[Array, "B L heads d"],
    k: Float[Array, "B L heads d"],
    v: Float[Array, "B L heads d"],
    attended: Bool[Array, "B n_from L"] | None = None,
    form: Form = "xla",
) -> Float[Array, "B L heads d"]:
    """softmax(q k^T / sqrt(d)) v over the places that are attended to.

    A place that attends to none gets the mean of all v, and no gradient by its q. The gradient computes the
    softmax again, of q, k and v. There is no forward mode, and with kernels no second derivative.

    Args:
        q, k, v: queries, keys and values of all heads.
        attended: for each place those that it attends to, [B, L, L]; [B, 1, L] where these are the same for
            all places; None for all.
        form: see `choose_form`. In float64 and on a CPU it is the formula, whatever the form; so it is for
            heads that are too wide for the kernels.

    Raises:
        UserError: on the device at hand the kernels of this form do not give what the formula does.
    """
    # What a function with a gradient by hand returns has no type.
    mixed: Any = _attend(q, k, v, attended, form)
    return mixed


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(q: Array, k: Array, v: Array, attended: Array | None, form: Form) -> Array:
    return _choose(form, attend_by_formula, _apply, q, k, v, attended)


def _forward(q: Array, k: Array, v: Array, attended: Array | None, form: Form) -> tuple[Array, tuple]:
    """Returns the attention, and its arguments for the backward pass."""
    return _choose(form, attend_by_formula, _apply, q, k, v, attended), (q, k, v, attended)


def _backward(form: Form, arguments: tuple, g: Array) -> tuple:
    """Returns the gradients by q, k and v, given the saved arguments and the gradient g of the result."""
    # `attended` is not differentiable: its gradient is None.
    return *_choose(form, differentiate_formula, _differentiate, *arguments, g), None


_attend.defvjp(_forward, _backward)

# attention(q, k, v, attended)
Attention = Callable[[Array, Array, Array, Any], Array]


def _apply(attention: Attention, q: Array, k: Array, v: Array, attended: Array | None) -> Array:
    return attention(q, k, v, attended)


def _differentiate(
    attention: Attention, q: Array, k: Array, v: Array, attended: Array | None, g: Array
) -> tuple[Array, ...]:
    """Returns the gradients by q, k and v of the sum of g times the attention."""
    _, pull_back = jax.vjp(lambda q, k, v: attention(q, k, v, attended), q, k, v)
    return pull_back(g)


def _choose(
    form: Form, of_formula: Callable[..., Any], use: Callable[..., Any], *arrays: Array | None
) -> Any:
    """Returns of_formula(*arrays) on a CPU or in float64, elsewhere use(attention, *arrays) of a form."""
    q, attended = arrays[0], arrays[3]
    assert q is not None
    if q.dtype == jnp.float64:
        return of_formula(*arrays)
    L, d = q.shape[1], q.shape[3]
    device = jax.extend.backend.get_default_device()
    # Programs for a CPU alone are lowered for others, too, for which there are no kernels.
    if form == "xla" or device.platform == "cpu" or not _fits(form, device, q.dtype, L, d):
        elsewhere = partial(use, attend_by_jax)
    else:
        _check_form(form, q.dtype, L, d, attended if attended is None else attended.shape[1])
        elsewhere = partial(_use_kernels, form, use)
    return jax.lax.platform_dependent(*arrays, cpu=of_formula, default=elsewhere)


def _fits(form: Form, device: Any, dtype: Any, L: int, d: int) -> bool:
    """Says whether kernels of a form serve L places and heads of width d on a device."""
    if device.platform == "tpu":
        return L % TPU_BLOCK == 0
    if form == "cudnn":
        return True
    capability = _find_capability(device)
    most_bytes = next((most for least, most in BYTES_OF_A_HEAD if capability >= least), 0)
    return d <= WIDEST_HEAD and d * dtype.itemsize <= most_bytes


def attend_by_jax(
    q: Array,
    k: Array,
    v: Array,
    attended: Array | None,
    implementation: Literal["cudnn", "xla"] | None = None,
) -> Array:
    """Returns the attention of JAX, which in float64 is accurate to 1e-7 only, and is slower on a CPU."""
    mask = None if attended is None else attended[:, None]
    return jax.nn.dot_product_attention(q, k, v, mask=mask, implementation=implementation)


def attend_by_formula(q: Array, k: Array, v: Array, attended: Array | None) -> Array:
    """Returns the attention by its formula, with the softmax in float32 or wider."""
    B, L, heads, d = q.shape

    def merge_heads(x: Array) -> Array:
        return x.swapaxes(1, 2).reshape(B * heads, L, d)

    q, k, v = map(merge_heads, (q, k, v))
    wide = at_least_float32(q).dtype
    scores = jnp.einsum("nqd,nkd->nqk", q, k, preferred_element_type=wide) * d**-0.5
    if attended is not None:
        # These scores get the smallest number, not -inf: the softmax of a row without attended places is then
        # finite, not NaN.
        scores = jnp.where(jnp.repeat(attended, heads, 0), scores, jnp.finfo(wide).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)  # [B heads, L, L]
    mixed = jnp.einsum("nqk,nkd->nqd", weights, v)
    return mixed.reshape(B, heads, L, d).swapaxes(1, 2)


# With p the softmax over keys, dv = p^T g, and the gradient by the scores is
#
#     ds = p (dp - sum over keys of dp p),    dp = g v^T,
#
# from which dq = ds k / sqrt(d) and dk = ds^T q / sqrt(d). Here [keys, queries] are the axes of all of them,
# those of the transposes: of the three products that end in q, k and v one has to turn its scores first, with
# [queries, keys] it would be two.
def differentiate_formula(
    q: Array, k: Array, v: Array, attended: Array | None, g: Array
) -> tuple[Array, Array, Array]:
    """Returns the gradients by q, k and v of the sum of g times `attend_by_formula`, [B, L, heads, d] each.

    Args:
        q, k, v: its arguments, [B, L, heads, d].
        attended: likewise, [B, 1 or L, L]; None for all places.
        g: gradient of its result, [B, L, heads, d].
    """
    B, L, heads, d = q.shape

    def merge_heads(x: Array) -> Array:
        return at_least_float32(x).swapaxes(1, 2).reshape(B * heads, L, d)

    def split_heads(x: Array, like: Array) -> Array:
        return x.reshape(B, heads, L, d).swapaxes(1, 2).astype(like.dtype)

    queries, keys, values, mixed_gradient = map(merge_heads, (q, k, v, g))
    scores = jnp.einsum("nkd,nqd->nkq", keys, queries) * d**-0.5
    is_used = None
    if attended is not None:
        is_used = jnp.repeat(attended.swapaxes(1, 2), heads, 0)  # [B heads, L, 1 or L]
        scores = jnp.where(is_used, scores, jnp.finfo(scores.dtype).min)
    weights = jax.nn.softmax(scores, axis=1)  # [B heads, keys, queries]
    by_values = jnp.einsum("nkq,nqd->nkd", weights, mixed_gradient)
    by_weights = jnp.einsum("nkd,nqd->nkq", values, mixed_gradient)
    by_scores = weights * (by_weights - (by_weights * weights).sum(1, keepdims=True)) * d**-0.5
    if is_used is not None:
        # Of a place that attends to none the weights are not 0, but do not depend on its scores.
        by_scores = jnp.where(is_used, by_scores, 0.0)
    by_queries = jnp.einsum("nkq,nkd->nqd", by_scores, keys)
    by_keys = jnp.einsum("nkq,nqd->nkd", by_scores, queries)
    return split_heads(by_queries, q), split_heads(by_keys, k), split_heads(by_values, v)


# ---- Kernels of a library ----


def _attend_by_kernels(form: Form, q: Array, k: Array, v: Array, attended: Array | None) -> Array:
    """Returns the attention of all arrays that one device holds."""
    if attended is None:
        return _call_library(form, q, k, v, None)
    # Kernels leave out what no place attends to, so that a place without any would divide by 0. With q = 0
    # it attends to all alike, as by the formula.
    is_idle = ~attended.any(-1, keepdims=True)  # [B, 1 or L, 1]
    q = jnp.where(is_idle[..., None], jnp.zeros_like(q), q)
    return _call_library(form, q, k, v, attended | is_idle)


def _call_library(form: Form, q: Array, k: Array, v: Array, attended: Array | None) -> Array:
    if form == "cudnn":
        return attend_by_jax(q, k, v, attended, "cudnn")
    # It asks the default device what it is when it is imported.
    import tokamax  # pyright: ignore[reportMissingImports]

    mask = None if attended is None else attended[:, None]  # [B, 1, 1 or L, L]
    if mask is not None and jax.extend.backend.get_default_device().platform == "tpu":
        B, L = q.shape[:2]
        mask = jnp.broadcast_to(mask, (B, 1, L, L))
    with silence_deprecation():
        return tokamax.dot_product_attention(q, k, v, mask=mask, implementation=form)


def _use_kernels(form: Form, use: Callable[..., Any], *arrays: Array | None) -> Any:
    """Returns use(attention, *arrays) of the kernels of a form, with the rules of batches and of devices.

    Args:
        form: of the kernels.
        use: `_apply` or `_differentiate`.
        arrays: what it takes behind the attention; what a place attends to may be None.
    """
    # The rules below are of functions of arrays alone: None is put back inside.
    is_array = [x is not None for x in arrays]

    def use_on_one_device(*present: Array) -> Any:
        remaining = iter(present)
        all_arrays = [next(remaining) if there else None for there in is_array]
        return use(partial(_attend_by_kernels, form), *all_arrays)

    @custom_vmap
    def use_in_batches(*present: Array) -> Any:
        return _over_devices(use_on_one_device)(*present)

    @use_in_batches.def_vmap
    def _(size: int, is_batched: Sequence[bool], *present: Array) -> tuple[Any, Any]:
        # Examples of a batch are more examples.
        merged = []
        for x, batched in zip(present, is_batched, strict=True):
            batch = x if batched else jnp.broadcast_to(x, (size, *x.shape))
            merged.append(batch.reshape(-1, *batch.shape[2:]))
        results = jax.tree.map(lambda y: y.reshape(size, -1, *y.shape[1:]), use_in_batches(*merged))
        return results, jax.tree.map(lambda _: True, results)

    @jax.custom_jvp
    def use_without_derivative(*present: Array) -> Any:
        return use_in_batches(*present)

    # The first derivative is a rule of `attend`, so that what comes here is the second.
    @use_without_derivative.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        raise NotImplementedError(
            f"attention = {form!r}: kernels of attention have no second derivative; pass attention='xla'"
        )

    return use_without_derivative(*[x for x in arrays if x is not None])


def _over_devices(compute: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function of which each device computes the examples and the heads that it holds.

    Without it XLA would gather the examples of all devices for a kernel. Arrays are [B, L, heads, d], or
    [B, 1 or L, L] of what is attended to.
    """
    spread = custom_partitioning(compute)

    def partition(mesh: Any, arguments: Any, results: Any) -> tuple:
        sharding = arguments[0].sharding
        batch_axis, _, head_axis, _ = (*sharding.spec, *(None,) * 4)[:4]

        def place(x: Any) -> NamedSharding:
            axes = [batch_axis, None, head_axis, None] if len(x.shape) == 4 else [batch_axis, None, None]
            return NamedSharding(sharding.mesh, PartitionSpec(*axes))

        of_results = jax.tree.map(place, results)
        return sharding.mesh, compute, of_results, tuple(place(x) for x in arguments)

    def write_rule(mesh: Any, arguments: Any, results: Any) -> tuple[str, dict[str, tuple]]:
        words = ["b l h d" if len(x.shape) == 4 else "b m n" for x in arguments]
        outputs = ["b l h d"] * len(jax.tree.leaves(results))
        whole = ("l", "d", "m", "n") if "b m n" in words else ("l", "d")
        return f"{', '.join(words)} -> {', '.join(outputs)}", {"need_replication_factors": whole}

    spread.def_partition(partition=partition, sharding_rule=write_rule)
    return spread


@lru_cache(maxsize=64)
def _check_form(form: Form, dtype: Any, L: int, d: int, n_from: int | None) -> None:
    """Raises UserError where kernels do not give what the formula does, on the device that is at hand.

    Values and gradients are compared. Where there is no such device, as where programs are compiled for one
    that is only described, nothing is.

    Args:
        form: of the kernels.
        dtype: of q, k and v.
        L: places.
        d: width of a head.
        n_from: second axis of what is attended to, 1 or L; None where that is all.
    """
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return
    rng = np.random.default_rng(0)
    B = 2
    if L > FEW_PLACES:
        L = FEW_PLACES + L % FEW_PLACES
    # Arrays of NumPy: under a trace those of JAX would be a part of it.
    q, k, v, g = rng.normal(size=(4, B, L, 2, d)).astype(dtype)
    attended = None
    if n_from is not None:
        attended = rng.random((B, 1 if n_from == 1 else L, L)) < 0.5
        # A place may attend to none.
        attended[0, 0] = False

    def compute(attention: Attention, *arrays: Any) -> list[np.ndarray]:
        def evaluate(*x: Any) -> tuple[Array, ...]:
            return attention(*x[:4]), *_differentiate(attention, *x)

        results = compute_outside_a_trace(evaluate, arrays, device)
        return [x.astype(np.float64) for x in results]

    try:
        actual = compute(partial(_attend_by_kernels, form), q, k, v, attended, g)
    except Exception as error:  # of a library or a compiler, whose errors have no type in common
        raise UserError(
            f"attention = {form!r} fails on {device.device_kind} for heads of {d} in {dtype}, {L} places "
            f"({one_line(error)}): set attention='xla', and please report this line"
        ) from error
    wide_q, wide_k, wide_v, wide_g = (x.astype(np.float32) for x in (q, k, v, g))
    desired = compute(_attend_exactly, wide_q, wide_k, wide_v, attended, wide_g)
    error = max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(actual, desired, strict=True))
    # Products of float32 are of TF32 by default, which has 10 bits behind the point; bfloat16 has 7.
    rounding = max(float(jnp.finfo(dtype).eps), 2.0**-10)
    if not error <= 4 * rounding:
        raise UserError(
            f"attention = {form!r} differs from its formula by {error:.2g} on {device.device_kind}, heads of "
            f"{d} in {dtype}, {L} places: set attention='xla', and please report this line, with the "
            f"versions of jax ({jax.__version__}) and of tokamax"
        )


def _attend_exactly(q: Array, k: Array, v: Array, attended: Array | None) -> Array:
    with jax.default_matmul_precision("highest"):
        return attend_by_formula(q, k, v, attended)
