"""The convolution whose kernel's gradient is summed by parts on CPUs, against plain autodiff."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax.cpu import conv as module
from d3pm_jax.cpu.conv import conv
from d3pm_jax.program.machine.devices import batch_sharding, make_mesh, replicated_sharding

ONE = ((1, 1), (1, 1))
# examples, rows and columns, channels in and out, sides of the kernel, pads
CASES = [
    (6, 4, 6, 3, 5, 3, ONE),
    (6, 5, 3, 16, 5, 3, ONE),  # x takes the place of the kernel
    (4, 3, 4, 4, 3, 2, ((1, 0), (0, 1))),
    (4, 3, 4, 16, 32, 2, ((1, 0), (0, 1))),  # also here
    (4, 4, 4, 3, 4, 1, ((0, 0), (0, 0))),
    (5, 4, 5, 16, 3, 3, ((0, 2), (2, 1))),
]


def plain(x, kernel, pads):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=dimensions)


def arrays(B, H, W, n, m, side, _):
    keys = jax.random.split(jax.random.key(0))
    shapes = (B, H, W, n), (side, side, n, m)
    return [jax.random.normal(k, s, float) for k, s in zip(keys, shapes, strict=True)]


def gradients(f, pads, x, kernel):
    return jax.grad(lambda *a: jnp.sin(f(*a, pads)).sum(), (0, 1))(x, kernel)


@pytest.fixture
def _small_parts(monkeypatch):
    """Parts of as few examples as can be."""
    monkeypatch.setattr(module, "_MOST_BYTES", 1)
    monkeypatch.setattr(module, "_LEAST_BYTES", 0)


@pytest.mark.usefixtures("x64", "_small_parts")
def test_gradients_equal_those_of_plain_autodiff():
    inputs = [arrays(*case) for case in CASES]

    @partial(jax.jit, static_argnums=0)
    def all_gradients(f, inputs):
        return [gradients(f, case[-1], *args) for case, args in zip(CASES, inputs, strict=True)]

    actual = all_gradients(conv, inputs)
    expected = all_gradients(plain, inputs)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("x64", "_small_parts")
def test_gradients_under_vmap_equal_those_one_by_one():
    x, kernel = arrays(*CASES[0])
    stacked = jnp.stack([x, 2 * x]), jnp.stack([kernel, kernel + 1])
    actual = jax.jit(jax.vmap(partial(gradients, conv, ONE)))(*stacked)
    for i in range(2):
        for a, b in zip(actual, gradients(plain, ONE, *(s[i] for s in stacked)), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("_small_parts")
def test_parts_of_bfloat16_are_added_in_float32():
    """In bfloat16 512 + 2 is 512."""
    x = jnp.ones((2048, 1, 1, 1), jnp.bfloat16)
    kernel = jnp.ones((1, 1, 1, 1), jnp.bfloat16)
    actual = jax.jit(jax.grad(lambda kernel: jnp.sum(conv(x, kernel, ((0, 0), (0, 0))))))(kernel)
    assert actual.dtype == jnp.bfloat16
    assert actual.item() == 2048


@pytest.mark.usefixtures("_small_parts")
def test_every_device_of_a_mesh_sums_its_own_examples():
    mesh = make_mesh()
    x, kernel = arrays(4 * mesh.size, 4, 4, 3, 4, 3, ONE)
    f = jax.jit(partial(gradients, conv, ONE), in_shardings=(batch_sharding(mesh), replicated_sharding(mesh)))
    assert "all-gather" not in str(f.lower(x, kernel).compile().as_text())
    for a, b in zip(f(x, kernel), gradients(plain, ONE, x, kernel), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("_small_parts")
def test_accelerators_take_the_gradient_of_the_plain_convolution():
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((4, 4, 4, 3), (3, 3, 3, 5))]
    traced = {f: jax.jit(partial(gradients, f, ONE)).trace(*shapes) for f in (conv, plain)}

    def operations(f, platform):
        text = traced[f].lower(lowering_platforms=(platform,)).as_text()
        return {name: text.count(f"stablehlo.{name}") for name in ("convolution", "while", "transpose")}

    for platform in ("cuda", "tpu"):
        assert operations(conv, platform) == operations(plain, platform)
    assert operations(conv, "cpu")["while"] == 1


@pytest.mark.usefixtures("x64", "_small_parts")
def test_a_product_of_the_hessian_is_that_of_plain_autodiff():
    x, kernel = arrays(*CASES[0])

    @partial(jax.jit, static_argnums=0)
    def hessian_product(f, x, kernel):
        return jax.jvp(partial(gradients, f, ONE), (x, kernel), (x, kernel))

    actual = hessian_product(conv, x, kernel)
    expected = hessian_product(plain, x, kernel)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("x64", "_small_parts")
def test_what_a_device_has_of_its_own_is_not_cut():
    mesh = make_mesh()
    x, kernel = arrays(4 * mesh.size, 4, 4, 3, 4, 3, ONE)
    rows = jax.sharding.PartitionSpec(mesh.axis_names)
    whole = jax.sharding.PartitionSpec()

    def loss(f, x, kernel):
        return jax.shard_map(
            lambda x, kernel: jnp.sin(f(x, kernel, ONE)), mesh=mesh, in_specs=(rows, whole), out_specs=rows
        )(x, kernel).sum()

    actual = jax.jit(jax.grad(partial(loss, conv), (0, 1)))(x, kernel)
    expected = jax.jit(jax.grad(partial(loss, plain), (0, 1)))(x, kernel)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("B", "side", "n"), [(32, 32, 4), (128, 8, 64), (127, 8, 127), (0, 8, 0)])
def test_parts_that_are_too_small_are_not_made(B, side, n, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    x = jax.ShapeDtypeStruct((B, side, side, 32), jnp.float32)
    assert module._choose_part_size(jnp.zeros(x.shape, x.dtype), jnp.zeros(x.shape, x.dtype)) == n
