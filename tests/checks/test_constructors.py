"""What builds networks and reads data, weights and checkpoints is checked as kernels are.

The whole table runs with that of the kernels, in `test_checks`.
"""

import collections
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import d3pm_jax as d3pm
from d3pm_jax.models import Transformer, UNet
from tests.checks import constructors


def count(results):
    with jax.debug_key_reuse(False):  # the table has one key
        outcomes = list(results)
    # What the checks of types of these tests refuse before us is left to the whole table.
    defects = [x for x in outcomes if x[0] in constructors.DEFECTS and not x[2].startswith("TypeCheckError")]
    assert not defects, "\n".join(map(str, defects))
    return collections.Counter(kind for kind, _, _ in outcomes)


def test_every_argument_of_every_constructor_is_checked(tmp_path: Path):
    assert count(constructors.constructed(tmp_path, skips_right=True))["clear"] > 2000


def test_networks_refuse_inputs_of_other_shapes_and_types():
    assert count(constructors.called())["clear"] > 300
    assert count(constructors.called_under_jit(runs=False))["clear"] > 50


def test_an_input_of_one_entry_is_that_of_all_examples():
    """And a time out of range, or a class, then marks all."""
    for call in constructors.network_calls():
        graphdef, params = nnx.split(call.network)
        rng = np.random.default_rng(7)
        params = jax.tree.map(lambda x, rng=rng: jnp.asarray(rng.normal(size=x.shape), x.dtype), params)
        inputs = call.good | {"t": jnp.array([5, 5]), "label": jnp.array([2, 2]), "key": None}

        @jax.jit
        def outputs(t, label, graphdef=graphdef, params=params, inputs=inputs):
            network = nnx.merge(graphdef, params)
            return network(**inputs), network(**inputs | {"t": t, "label": label})

        expected, of_one_entry = outputs(jnp.array([5]), jnp.array([2]))
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(of_one_entry, expected, rtol=1e-4, atol=1e-5)
        for t, label in (([11], [2]), ([5], [3])):
            assert np.isnan(outputs(jnp.array(t), jnp.array(label))[1]).all()
        with pytest.raises(ValueError, match=r"^t has shape \(1, 1\), expected \[2\] as in xt"):
            call.network(**call.good | {"t": jnp.ones((1, 1))})


def test_a_network_within_a_function_of_a_user_is_called_at_any_time():
    """At t = 0, and where a kernel calls the function at times of another scale."""
    network = constructors.with_zeros(Transformer, constructors.TRANSFORMER | {"K": 3})
    x0 = jnp.zeros((2, 4), jnp.int32)
    np.testing.assert_array_equal(jax.jit(network)(x0, jnp.array([0, 10])), 0.0)
    np.testing.assert_array_equal(
        jax.jit(network)(x0, jnp.array([0.5, 11])), [[[0.0] * 3] * 4, [[np.nan] * 3] * 4]
    )
    refused = (
        r"^t contains 11, outside 0\.\.10: t counts from 1 to max_time = 10 of the network, and 0 is clean"
    )
    with pytest.raises(ValueError, match=refused):
        network(x0, jnp.array([0, 11]))

    process = d3pm.uniform(d3pm.reciprocal(4), 3)

    def bound(denoise):
        return d3pm.all_t_bound(denoise, process, x0, lambda t: jnp.full(x0.shape, 0.5)).steps

    np.testing.assert_array_equal(bound(lambda xt, t: network(xt, 100.0 - 200 * t)), bound(network))


def test_numbers_of_numpy_and_lists_are_taken_as_those_of_python():
    channels = jnp.asarray(1)
    network = nnx.eval_shape(
        lambda: UNet(
            np.int64(5),
            channels,
            [8, 8],
            np.int32(10),
            ch=np.int64(4),
            ch_mult=[1, 2],
            attn_resolutions=np.array([4]),
            dropout=np.float32(0.5),
            groups=2,
            rngs=nnx.Rngs(0),
        )
    )
    assert [len(stage.attns) for stage in network.down] == [0, 2]
    assert type(network.K) is int


def test_a_program_of_the_library_has_no_marks_of_its_networks():
    """A bound calls a network with draws, which are categories."""
    network = constructors.with_zeros(Transformer, constructors.TRANSFORMER | {"K": 3})
    process = d3pm.uniform(d3pm.reciprocal(4), 3)

    def bound(denoise, x0):
        return d3pm.all_t_bound(denoise, process, x0, lambda t: jnp.full(x0.shape, 0.5)).steps

    x0 = jnp.zeros((2, 4), jnp.int32)
    direct = jax.make_jaxpr(lambda x0: bound(network, x0))(x0)
    with_marks = jax.make_jaxpr(lambda x0: bound(lambda xt, t: network(xt, t), x0))(x0)
    assert len(str(direct)) < len(str(with_marks))
