"""What a function and its gradient compute, against formulas and against the gradient's own program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from d3pm_jax import projection
from d3pm_jax.models import attend
from d3pm_jax.program.compiled import flops

A = jax.ShapeDtypeStruct((4, 8, 16), np.float32)
B = jax.ShapeDtypeStruct((4, 16, 32), np.float32)
MATMUL = 2 * 4 * 8 * 16 * 32
KERNEL = jax.ShapeDtypeStruct((3, 5, 4, 6), np.float32)
IMAGE = jax.ShapeDtypeStruct((2, 7, 9, 8), np.float32)
CONV = 2 * (2 * 7 * 9 * 6) * (3 * 5 * 4)
SQUARE = jax.ShapeDtypeStruct((3, 5, 4, 6), np.float32)
EVEN = jax.ShapeDtypeStruct((2, 6, 8, 4), np.float32)
W = jax.ShapeDtypeStruct((10, 16, 16), np.float32)
X = jax.ShapeDtypeStruct((3, 16), np.float32)
LAYER = 2 * 3 * 16 * 16


def conv(kernel, image):
    """Of two groups of channels."""
    return jax.lax.conv_general_dilated(
        image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2
    )


def strided(kernel, image):
    return jax.lax.conv_general_dilated(
        image, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def transposed(kernel, image):
    return jax.lax.conv_transpose(image, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def gathered(w, x):
    """Sums rows of a product into others, which is a program inside that takes scalars."""
    y = x @ w[0]
    i = jnp.asarray([0, 1, 0])
    return jax.ops.segment_sum(y, i, 2).at[0].add(1.0).at[:, 0].max(y[:2, 0]) @ w[1, :, :9]


def layer(x, w):
    return jnp.tanh(x @ w), None


def layers(w, x, layer=layer):
    return jax.lax.scan(layer, x, w)[0]


def stacked(w, x):
    """What is carried does not depend on params, what is stacked does; w[9] is a constant of a loop."""

    def body(x, w_of_round):
        y = x @ w_of_round
        return jnp.ones_like(x), (x, y)

    _, (_, products) = jax.lax.scan(body, x, w)
    return jax.lax.scan(lambda x, y: (x + y @ w[9], None), x, products)[0]


def chosen(w, x):
    return jax.lax.cond(x[0, 0] > 0, lambda: x @ w[0] @ w[1], lambda: jax.jit(jnp.matmul)(x, w[2]))


def spread(w, x):
    """Each of four devices multiplies a part, as two axes of the mesh say; a third has no say."""
    automatic = (jax.sharding.AxisType.Auto,) * 3
    mesh = jax.sharding.AbstractMesh((2, 2, 2), ("a", "b", "c"), automatic)
    parts = jax.sharding.PartitionSpec(("a", "b"))
    specs = (jax.sharding.PartitionSpec(), parts)
    axes = {"a", "b"}
    f = jax.shard_map(
        lambda w, x: x @ w[0], mesh=mesh, in_specs=specs, out_specs=parts, axis_names=axes, check_vma=False
    )
    return f(w, jnp.concatenate([x, x, x, x]))


def looped(w, x):
    return jax.lax.while_loop(lambda x: x[0, 0] > 0, lambda x: x @ w[0], x)


@pytest.mark.parametrize(
    ("f", "params", "x", "expected"),
    [
        (lambda b, a: a @ b, B, A, 2 * MATMUL),
        (lambda both, _: both[0] @ both[1], (A, B), 0.0, 3 * MATMUL),
        (lambda _, ab: ab[0] @ ab[1], 0.0, (A, B), MATMUL),
        (conv, KERNEL, IMAGE, 2 * CONV),
        (strided, SQUARE, EVEN, 2 * 2 * (2 * 3 * 4 * 6) * (3 * 5 * 4)),
        (transposed, SQUARE, EVEN, 2 * 2 * (2 * 6 * 8 * 4) * (3 * 5 * 6)),
        (lambda both, _: conv(*both), (KERNEL, IMAGE), 0.0, 3 * CONV),
        (layers, W, X, 30 * LAYER),  # the first input is data, in a loop that is the same for all
        (lambda x, w: layers(w, x), X, W, 20 * LAYER),
        (lambda w, x: layers(w, x, jax.checkpoint(layer)), W, X, 30 * LAYER),  # not 40
        (stacked, W, X, (20 + 30) * LAYER),
        (chosen, W, X, (2 + 3) * LAYER),
        (looped, W, X, 3 * LAYER),
        (spread, W, X, 4 * 2 * LAYER),
        (gathered, W, X, 2 * LAYER + 3 * 2 * 2 * 16 * 9),
        (
            lambda w, x: (jnp.argmax(x @ w[0], 1)[:, None] * x) @ w[1],
            W,
            X,
            4 * LAYER,
        ),  # no gradient goes back
    ],
)
def test_formulas(f, params, x, expected):
    assert flops.count_flops(f, params, x) == expected


def test_the_gradient_has_so_many():
    """The same count of the gradient's program, in which nothing is computed again, or one round."""

    def of_program(f, *args):
        return flops.count_flops(lambda _, args: f(*args), 0.0, args)

    def loss(w, x, layer=layer):
        return layers(w, x, layer).sum()

    counted = flops.count_flops(loss, W, X)
    assert of_program(jax.grad(loss), W, X) == counted
    assert of_program(jax.grad(lambda both: strided(*both).sum()), (SQUARE, EVEN)) == flops.count_flops(
        lambda both: strided(*both).sum(), (SQUARE, EVEN)
    )
    again = of_program(jax.grad(lambda w, x: loss(w, x, jax.checkpoint(layer))), W, X)
    assert again == counted + 10 * LAYER


def test_a_rule_of_its_own_counts_as_what_it_stands_for():
    """The backward pass of `attend` computes the softmax again."""
    q = jax.ShapeDtypeStruct((2, 5, 3, 4), np.float32)
    assert flops.count_flops(lambda qkv, seen: attend(*qkv, seen), (q, q, q), None) == 3 * 2 * 2 * (
        2 * 3 * 5 * 5 * 4
    )


def test_the_rounds_of_projected_logits_are_counted():
    """Of 600 places, in three rounds of 256: products of all rounds, three times each with the gradient."""
    hidden, kernel = jnp.ones((600, 5)), jnp.ones((5, 7))
    xt = jnp.zeros(600, jnp.int32)

    def total(parts, _):
        logits = projection.Projection(*parts, None, xt, lambda output, xt: output)
        return projection.weigh(logits, lambda logits: (logits[:, 0],), (), jnp.ones(600))[0]

    of_a_place = 2 * 5 * 7
    assert flops.count_flops(total, (hidden, kernel), 0.0) == 3 * of_a_place * 3 * 256
