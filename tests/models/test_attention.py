"""Forms of attention: which one is chosen, and that kernels are given what makes them the formula."""

import sys
from functools import partial
from types import SimpleNamespace

import jax
import jax.extend.backend
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from d3pm_jax.errors import UserError
from d3pm_jax.models import attend, attention, choose_form
from d3pm_jax.program.machine.devices import make_mesh

B, L, HEADS, D = 4, 6, 2, 8


def kernels(form, q, k, v, attended):
    """Attention that divides by 0 where a place attends to none, as kernels do, and takes no second axis."""
    assert form == "mosaic"
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5
    if attended is not None:
        scores = jnp.where(attended[:, None], scores, -jnp.inf)
    weights = jnp.exp(scores - scores.max(-1, keepdims=True))
    return jnp.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), v)


@pytest.fixture(params=["all", "padding", "blocks"])
def arrays(request):
    rng = np.random.default_rng(3)
    q, k, v, g = jnp.asarray(rng.normal(size=(4, B, L, HEADS, D)), jnp.float32)
    attended = {
        "all": None,
        # The last example is padding alone.
        "padding": jnp.arange(L)[None, None] < jnp.array([6, 3, 1, 0])[:, None, None],
        # Causal in blocks of two, but for a place that attends to none.
        "blocks": jnp.broadcast_to(
            (jnp.arange(L)[:, None] // 2 >= jnp.arange(L)[None] // 2) & (jnp.arange(L) != 3)[:, None],
            (B, L, L),
        ),
    }[request.param]
    return q, k, v, attended, g


def value_and_gradients(attend_to, q, k, v, attended, g):
    value, pull_back = jax.vjp(lambda q, k, v: attend_to(q, k, v, attended), q, k, v)
    return value, *pull_back(g)


def by_kernels(*arrays):
    return attention._use_kernels("mosaic", attention._differentiate, *arrays)


def test_kernels_give_what_the_formula_does(monkeypatch, arrays):
    """With their batches under vmap, too, where some arrays have no batch, and over devices."""
    monkeypatch.setattr(attention, "_call_library", kernels)
    expected = jax.jit(partial(value_and_gradients, attention.attend_by_formula))(*arrays)
    value = jax.jit(partial(attention._use_kernels, "mosaic", attention._apply))(*arrays[:4])
    gradients = jax.jit(by_kernels)(*arrays)
    for actual, desired in zip((value, *gradients), expected, strict=True):
        np.testing.assert_allclose(actual, desired, rtol=0, atol=1e-6)

    *others, g = arrays
    batched = jax.jit(jax.vmap(by_kernels, (None,) * 4 + (0,)))(*others, jnp.stack([g, 2 * g]))
    for actual, desired in zip(batched, gradients, strict=True):
        np.testing.assert_allclose(actual, jnp.stack([desired, 2 * desired]), rtol=0, atol=1e-6)

    mesh = make_mesh(1, jax.devices()[:2])
    spread = jax.device_put(arrays, NamedSharding(mesh, PartitionSpec(mesh.axis_names)))
    program = jax.jit(by_kernels).lower(*spread).compile()
    assert "all-gather" not in program.as_text()
    for actual, desired in zip(program(*spread), gradients, strict=True):
        np.testing.assert_allclose(actual, desired, rtol=0, atol=1e-6)


def test_cpus_take_the_formula_to_the_last_bit_and_its_gradients(arrays):
    """The gradients, which are written out, equal those of autodiff in float64 to the rounding of a type."""
    formula = jax.jit(partial(value_and_gradients, attention.attend_by_formula))
    ours = jax.jit(partial(value_and_gradients, attend))
    np.testing.assert_array_equal(ours(*arrays)[0], formula(*arrays)[0])
    q, k, v, attended, g = arrays

    def of_type(dtype):
        return *(x.astype(dtype) for x in (q, k, v)), attended, g.astype(dtype)

    with jax.enable_x64(True):
        expected = formula(*of_type(jnp.float64))
        for dtype, tolerance in ((jnp.float64, 1e-13), (jnp.float32, 1e-6), (jnp.bfloat16, 2e-2)):
            for actual, desired in zip(ours(*of_type(dtype)), expected, strict=True):
                assert actual.dtype == dtype
                np.testing.assert_allclose(actual.astype(float), desired, rtol=tolerance, atol=tolerance)


def test_on_a_cpu_every_form_is_the_formula():
    x = jnp.asarray(np.random.default_rng(4).normal(size=(1, L, HEADS, D)), jnp.float32)
    expected = jax.jit(attend)(x, x, x)
    for form in attention.FORMS:
        np.testing.assert_array_equal(jax.jit(partial(attend, form=form))(x, x, x), expected)


def test_a_second_derivative_of_kernels_is_refused(monkeypatch):
    monkeypatch.setattr(attention, "_call_library", kernels)
    x = jnp.ones((1, L, HEADS, D))
    with pytest.raises(NotImplementedError, match="no second derivative; pass attention='xla'"):
        jax.grad(lambda q: by_kernels(q, x, x, None, x)[0].sum())(x)


def device(platform, kind, capability=None):
    return SimpleNamespace(platform=platform, device_kind=kind, compute_capability=capability)


H100 = device("gpu", "NVIDIA H100 80GB HBM3", "9.0")
A100 = device("gpu", "NVIDIA A100-SXM4-80GB", "8.0")
T4 = device("gpu", "Tesla T4", "7.5")
B200 = device("gpu", "NVIDIA B200", "10.0")
RTX_5090 = device("gpu", "NVIDIA GeForce RTX 5090", "12.0")
MI300 = device("gpu", "AMD Instinct MI300X", "gfx942")
TPU = device("tpu", "TPU v5 lite")
CPU = device("cpu", "cpu")


def test_the_best_form_that_a_device_and_a_type_allow_is_chosen(monkeypatch):
    def choose(device, wanted, dtype, has_tokamax=True):
        monkeypatch.setattr(jax.extend.backend, "get_default_device", lambda: device)
        monkeypatch.setattr(attention, "_has_tokamax", lambda: has_tokamax)
        return choose_form(wanted, dtype)

    for at, dtype, expected in (
        (H100, jnp.bfloat16, "mosaic"),
        (H100, None, "triton"),
        (A100, jnp.bfloat16, "triton"),
        (B200, jnp.bfloat16, "triton"),
        (T4, jnp.bfloat16, "xla"),
        (MI300, jnp.bfloat16, "xla"),
        (TPU, jnp.bfloat16, "mosaic"),
        (TPU, jnp.float32, "mosaic"),
        (H100, jnp.float64, "xla"),
        (CPU, jnp.bfloat16, "xla"),
    ):
        assert choose(at, None, dtype) == expected, (at, dtype)
        # Without the library it is what it was.
        assert choose(at, None, dtype, has_tokamax=False) == "xla"
        assert choose(at, "xla", dtype) == "xla"
    assert choose(CPU, "mosaic", None, has_tokamax=False) == "xla"
    assert choose(H100, "cudnn", jnp.bfloat16, has_tokamax=False) == "cudnn"
    for at, wanted, dtype, has_tokamax, words in (
        (A100, "mosaic", jnp.bfloat16, True, "it does not serve NVIDIA A100"),
        (TPU, "triton", jnp.bfloat16, True, "it does not serve TPU v5 lite"),
        (H100, "mosaic", None, True, "takes no float32: set compute='bfloat16'"),
        (H100, "triton", None, False, r"tokamax is not installed: pip install -e '.\[attention\]'"),
    ):
        with pytest.raises(ValueError, match=words):
            choose(at, wanted, dtype, has_tokamax)


def test_kernels_serve_what_fits_into_the_memory_that_a_multiprocessor_shares():
    """Widths of heads of which kernels compiled for described cards, and the next that did not."""
    for at, dtype, widest, too_wide in (
        (H100, jnp.bfloat16, 256, 264),
        (H100, jnp.float32, 256, 264),
        (B200, jnp.float32, 256, 264),
        (A100, jnp.bfloat16, 256, 264),
        (A100, jnp.float32, 128, 192),
        (RTX_5090, jnp.bfloat16, 128, 192),
        (RTX_5090, jnp.float32, 64, 96),
    ):
        fits = [attention._fits("triton", at, jnp.dtype(dtype), L, d) for d in (widest, too_wide)]
        assert fits == [True, False], (at, dtype)
    # Blocks on a TPU are of 128 places.
    assert [attention._fits("mosaic", TPU, jnp.dtype(jnp.float32), n, 512) for n in (256, 200)] == [
        True,
        False,
    ]


@pytest.fixture
def card(monkeypatch):
    """The CPU in the place of a card, whose kernels are ours."""
    card = device("gpu", "a card", "9.0")
    monkeypatch.setattr(jax, "local_devices", lambda: [card])
    monkeypatch.setattr(jax.extend.backend, "get_default_device", lambda: card)
    monkeypatch.setattr(jax, "device_put", lambda x, _: jax.tree.map(jnp.asarray, x))
    monkeypatch.setattr(attention, "_call_library", kernels)


def test_the_library_is_given_a_mask_of_an_axis_for_heads(monkeypatch):
    """On a TPU the mask has all places: its kernels read it as it is."""
    masks = []

    def record(q, k, v, mask, implementation):
        masks.append(mask)
        return q

    monkeypatch.setitem(sys.modules, "tokamax", SimpleNamespace(dot_product_attention=record))
    x = jnp.ones((B, L, HEADS, D))
    attended = jnp.arange(B * L).reshape(B, 1, L) % 3 > 0
    for at in (H100, TPU):
        monkeypatch.setattr(jax.extend.backend, "get_default_device", lambda at=at: at)
        for mask in (None, attended):
            attention._call_library("mosaic", x, x, x, mask)
    assert masks[0] is masks[2] is None
    np.testing.assert_array_equal(masks[1], attended[:, None], strict=True)
    np.testing.assert_array_equal(masks[3], np.repeat(attended[:, None], L, axis=2), strict=True)


def check(dtype, n_from, d=D):
    """Compares the kernels with the formula while a program that calls `attend` is traced."""
    dtype = jnp.dtype(dtype)

    def attend_and_check(x):
        attention._check_form.__wrapped__("mosaic", dtype, 516, d, n_from)
        return x

    jax.make_jaxpr(attend_and_check)(0.0)


@pytest.mark.usefixtures("card")
def test_kernels_that_differ_on_the_device_at_hand_are_refused(monkeypatch):
    """They are compared at lengths that leave as much over of a block, with masks of the same shape."""
    lengths = set()

    def record(form, q, k, v, attended):
        lengths.add((q.shape[1], attended.shape[1]))
        return kernels(form, q, k, v, attended)

    monkeypatch.setattr(attention, "_call_library", record)
    for dtype, n_from in ((jnp.float32, 516), (jnp.bfloat16, 1)):
        check(dtype, n_from)
        assert lengths == {(516, n_from)}
        lengths.clear()

    def wrong(form, q, k, v, attended):
        return kernels(form, q, k, v * 1.05, attended)

    monkeypatch.setattr(attention, "_call_library", wrong)
    with pytest.raises(UserError, match=r"attention = 'mosaic' differs from its formula by 0\.05"):
        check(jnp.float32, None)

    def fail(*arrays):
        raise NotImplementedError("no block of this size")

    monkeypatch.setattr(attention, "_call_library", fail)
    with pytest.raises(UserError, match=r"'mosaic' fails on a card .*no block of this size.*attention='xla'"):
        check(jnp.float32, None)


@pytest.mark.usefixtures("card")
def test_heads_that_are_too_wide_for_kernels_take_no_kernel(monkeypatch):
    def fail(*arrays):
        raise AssertionError("a kernel was called")

    monkeypatch.setattr(attention, "_call_library", fail)
    monkeypatch.setattr(attention, "_check_form", fail)
    x = jnp.ones((1, L, 1, 264))
    jax.make_jaxpr(partial(attend, form="mosaic"))(x, x, x)
    x = x[..., :256]
    with pytest.raises(AssertionError):
        jax.make_jaxpr(partial(attend, form="mosaic"))(x, x, x)
