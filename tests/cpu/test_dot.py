"""Products with a kernel whose gradient is computed transposed on CPUs, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax.cpu.dot import dot_of_flax


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("rows", [(7,), (3, 4)])
@pytest.mark.parametrize(("n", "m"), [(5, 2), (2, 5), (3, 3)])
def test_products_and_gradients_are_those_of_matrices(rows, n, m):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(*rows, n))
    kernel = rng.normal(size=(n, m))
    g = rng.normal(size=(*rows, m))
    dimensions = (((len(rows),), (0,)), ((), ()))

    @jax.jit
    def value_and_gradients(x, kernel, g):
        value, pull_back = jax.vjp(lambda x, kernel: dot_of_flax(x, kernel, dimensions), x, kernel)
        return value, *pull_back(g)

    by_kernel = x.reshape(-1, n).T @ g.reshape(-1, m)
    for actual, expected in zip(
        value_and_gradients(*map(jnp.asarray, (x, kernel, g))),
        (x @ kernel, g @ kernel.T, by_kernel),
        strict=True,
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-13, atol=1e-13)


def test_a_cpu_computes_the_gradient_of_a_narrowing_kernel_transposed():
    """The gradient [64, 16] of a kernel is a product [16, 64] in the program."""
    x = jnp.ones((256, 64))
    g = jnp.ones((256, 16))

    def gradient(x, kernel, g):
        return jax.vjp(lambda kernel: dot_of_flax(x, kernel, (((1,), (0,)), ((), ()))), kernel)[1](g)

    program = jax.jit(gradient).lower(x, jnp.ones((64, 16)), g).compile()
    products = [line for line in str(program.as_text()).splitlines() if " dot(" in line]
    assert products
    assert all(" = f32[16,64]" in line for line in products)
