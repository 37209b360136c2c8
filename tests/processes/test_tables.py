"""Rows of tables by their index."""

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np

from d3pm_jax.processes.tables import gather


def i32(*x):
    return jnp.asarray(x, jnp.int32)


def test_an_index_outside_of_a_table_is_nan_not_another_row():
    rows = jax.jit(gather)(jnp.arange(3.0), i32(-1, 0, 2, 3))
    np.testing.assert_array_equal(rows, [np.nan, 0, 2, np.nan])
