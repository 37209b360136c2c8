"""Holds the layers of a flow on vectors v [B, *S, D], such as positions of a text with D numbers each.

Each layer is a pair of functions, v -> (z, log |det dz/dv|) and z -> v. What depends on parameters is passed
in: a conditioner is a network with its parameters bound, and says how the numbers of a layer are transformed
by a function of `elementwise`. A flow calls layers one after the other and adds their log-determinants.
"""

import math
from collections.abc import Callable
from typing import Annotated

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from d3pm_jax.checks import FINITE, Called, at_least, declared, is_known
from d3pm_jax.flows.elementwise import Transformed
from d3pm_jax.numerics.logspace import at_least_float32

# The numbers that a coupling leaves alone -> the parameters of the others.
Conditioner = Annotated[
    Callable[[Float[Array, " B *S n"]], Float[Array, " B *S m P"]],
    Called("v", "return P float parameters of each number that is transformed"),
]

# All numbers -> the parameters of each, which may depend on the numbers before it alone.
CausalConditioner = Annotated[
    Callable[[Float[Array, " B *S D"]], Float[Array, " B *S D P"]],
    Called("v", "return P float parameters of each number, made from the numbers before it"),
]

# Numbers and their parameters -> what the numbers become, and log |dz/dv|.
Transform = Annotated[
    Callable[[Float[Array, " *V"], Float[Array, " *V P"]], Transformed],
    Called("v, params", "return flows.Transformed(z, log_slope) of each number"),
]
InverseTransform = Annotated[
    Callable[[Float[Array, " *V"], Float[Array, " *V P"]], Float[Array, " *V"]],
    Called("z, params", "return v of each number"),
]


@declared(v=FINITE, num_fixed=at_least(1))
def coupling(
    conditioner: Conditioner, v: Float[Array, " B *S D"], num_fixed: int, transform: Transform
) -> tuple[Float[Array, " B *S D"], Float[Array, " B"]]:
    """Keeps the first numbers of each vector, and transforms the others with parameters from the first.

    Args:
        conditioner: v[..., :num_fixed] -> parameters [B, *S, D - num_fixed, P].
        v: vectors.
        num_fixed: how many numbers are left alone, below D.
        transform: of `elementwise`, such as `mixture_affine`.

    Returns:
        z, and log |det dz/dv| of each example.

    Raises:
        ValueError: no number is left to transform, or the conditioner has another width.
    """
    fixed, moved = _split("v", v, num_fixed)
    z, log_det = transform(moved, _condition(conditioner, fixed, moved))
    return jnp.concatenate([fixed, z], axis=-1), _sum_per_example(log_det)


@declared(z=FINITE, num_fixed=at_least(1))
def invert_coupling(
    conditioner: Conditioner, z: Float[Array, " B *S D"], num_fixed: int, inverse: InverseTransform
) -> Float[Array, " B *S D"]:
    """Inverts `coupling`: returns v.

    Args:
        conditioner: v[..., :num_fixed] -> parameters [B, *S, D - num_fixed, P].
        num_fixed: how many numbers are left alone, below D.
        z: vectors.
        inverse: of the transform, such as `invert_mixture_affine`.

    Raises:
        ValueError: no number is left to transform, or the conditioner has another width.
    """
    fixed, moved = _split("z", z, num_fixed)
    v = inverse(moved, _condition(conditioner, fixed, moved))
    return jnp.concatenate([fixed, v], axis=-1)


@declared(v=FINITE)
def autoregressive(
    conditioner: CausalConditioner, v: Float[Array, " B *S D"], transform: Transform
) -> tuple[Float[Array, " B *S D"], Float[Array, " B"]]:
    """Transforms every number, with parameters from the numbers before it: by position, then the D in each.

    Args:
        conditioner: v -> parameters [B, *S, D, P], each of which depends on the numbers before its own alone.
        v: vectors.
        transform: of `elementwise`, such as `mixture_affine`.

    Returns:
        z, and log |det dz/dv| of each example.
    """
    z, log_det = transform(v, _condition(conditioner, v, v))
    return z, _sum_per_example(log_det)


@declared(z=FINITE)
def invert_autoregressive(
    conditioner: CausalConditioner, z: Float[Array, " B *S D"], inverse: InverseTransform
) -> Float[Array, " B *S D"]:
    """Inverts `autoregressive`: returns v, one number after the other, by a call of the conditioner for each.

    Args:
        conditioner: v -> parameters [B, *S, D, P], each of which depends on the numbers before its own alone.
        z: vectors.
        inverse: of the transform, such as `invert_mixture_affine`.

    Returns:
        v, in float32 or wider.
    """
    shape = z.shape
    z = at_least_float32(z).reshape(len(z), math.prod(shape[1:]))  # [B, N]

    def invert_next(i: Array | int, v: Array) -> Array:
        v_of_examples = v.reshape(shape)
        params = _condition(conditioner, v_of_examples, v_of_examples)
        params = params.reshape(*z.shape, params.shape[-1])  # [B, N, P]
        params_i = lax.dynamic_index_in_dim(params, i, axis=1, keepdims=False)  # [B, P]
        z_i = lax.dynamic_index_in_dim(z, i, axis=1, keepdims=False)  # [B]
        return lax.dynamic_update_index_in_dim(v, inverse(z_i, params_i).astype(v.dtype), i, axis=1)

    # Numbers that have no value yet are 0, which no parameter before them depends on.
    return lax.fori_loop(0, z.shape[1], invert_next, jnp.zeros_like(z)).reshape(shape)


@declared(v=FINITE, matrix=FINITE)
def linear(
    v: Float[Array, " B *S D"], matrix: Float[Array, "D D"]
) -> tuple[Float[Array, " B *S D"], Float[Array, " B"]]:
    """z = matrix v of each vector: a 1 x 1 convolution.

    Args:
        v: vectors.
        matrix: one for all of them, invertible.

    Returns:
        z, and log |det dz/dv| of each example: how many vectors it has times log |det matrix|. In float32 or
        wider.
    """
    v = at_least_float32(v)
    matrix = at_least_float32(matrix)
    num_vectors = math.prod(v.shape[1:-1])
    log_det = num_vectors * jnp.linalg.slogdet(matrix).logabsdet
    return jnp.matmul(v, matrix.T, precision=lax.Precision.HIGHEST), jnp.broadcast_to(log_det, v.shape[:1])


@declared(z=FINITE, matrix=FINITE)
def invert_linear(z: Float[Array, " B *S D"], matrix: Float[Array, "D D"]) -> Float[Array, " B *S D"]:
    """Inverts `linear`: returns v.

    Args:
        z: vectors.
        matrix: one for all of them, invertible.

    Returns:
        v, in float32 or wider; under `jit` NaN where the matrix is singular.

    Raises:
        ValueError: the matrix is singular, up to the last digit of its entries.
    """
    z = at_least_float32(z)
    matrix = at_least_float32(matrix)
    vectors = z.reshape(-1, z.shape[-1]).T  # [D, ..]
    v = jnp.linalg.solve(matrix, vectors).T.reshape(z.shape)

    # An entry a_ij that changes by a share of -1 / (a_ij b_ji), where b is the inverse, makes the matrix
    # singular. The sum over all entries, unlike a condition number, is the same for scaled rows and columns.
    # It is infinite or NaN where there is no inverse.
    sensitivity = jnp.sum(jnp.abs(matrix * jnp.linalg.inv(matrix).T))
    is_invertible = sensitivity < 1 / jnp.finfo(matrix.dtype).eps
    if is_known(is_invertible) and not is_invertible:
        raise ValueError("matrix is singular, so that no v is the only one of z: pass one with an inverse")
    return jnp.where(is_invertible, v, jnp.nan)


def _split(name: str, v: Array, num_fixed: int) -> tuple[Array, Array]:
    """Splits vectors into the numbers that a coupling leaves alone and those that it transforms."""
    if num_fixed >= v.shape[-1]:
        raise ValueError(
            f"num_fixed = {num_fixed} leaves no number of {name}, which has D = {v.shape[-1]}, to transform: "
            f"take fewer"
        )
    return v[..., :num_fixed], v[..., num_fixed:]


def _condition(conditioner: Callable[[Array], Array], fixed: Array, moved: Array) -> Array:
    """Returns the parameters of the numbers that are transformed, [*moved, P]."""
    params = conditioner(fixed)
    if params.shape[:-1] != moved.shape:
        raise ValueError(
            f"conditioner(v) has shape {params.shape}, expected [{', '.join(map(str, moved.shape))}, P]: "
            f"return P parameters of each number that is transformed"
        )
    return params


def _sum_per_example(x: Array) -> Array:
    """Sums over all but the first axis."""
    return jnp.sum(x, axis=tuple(range(1, x.ndim)))
