"""Blocks that are computed again in the backward pass: the same numbers in less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from d3pm_jax import config as configs
from d3pm_jax.config import Spec
from tests.models.small import images, randomised, small, small_score_net

# By default XLA on a CPU begins to compute again before it has to. Other platforms need no such option.
AS_LATE_AS_CAN_BE = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_remat_changes_no_number():
    """Neither the loss, with dropout of a key and without, nor the gradient."""
    options = {
        "ch_mult": (1,),
        "num_res_blocks": 0,
        "dropout": 0.5,
        "num_classes": 3,
        "attn_resolutions": (8,),
    }
    graphdef, params = randomised(small, **options)
    params = jax.tree.map(lambda x: x.astype(float), params)
    xt, t = images()
    leaner = nnx.graphdef(nnx.eval_shape(lambda: small(**options, remat=True)))

    def loss(params, graphdef, key):
        return (nnx.merge(graphdef, params)(xt, t, label=jnp.asarray([0, 2]), key=key) ** 2).sum()

    @jax.jit
    def without_dropout(params):
        return [loss(params, g, None) for g in (graphdef, leaner)]

    @jax.jit
    def with_dropout(params, key):
        return [jax.value_and_grad(loss)(params, g, key) for g in (graphdef, leaner)]

    value, leaner_value = without_dropout(params)
    assert value == leaner_value
    values = [float(value)]
    for key in (jax.random.key(1), jax.random.key(2)):
        (value, gradient), (leaner_value, leaner_gradient) = with_dropout(params, key)
        assert value == leaner_value
        for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(leaner_gradient), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * np.abs(value) ** 0.5)
        values.append(float(value))
    assert len(set(values)) == 3


def test_a_score_net_has_its_blocks_computed_again():
    """They are those of the network above: three residual ones and two attentions."""
    graphdef, params = randomised(small_score_net, ch_mult=(1,), num_res_blocks=0, attn=(0,), remat=True)
    program = jax.make_jaxpr(lambda params: nnx.merge(graphdef, params)(*images()))(params)
    again = [equation for equation in program.eqns if "prevent_cse" in equation.params]
    assert len(again) == 5


U_NET = configs.UNet(ch=16, ch_mult=(1,), num_res_blocks=1, groups=4, attn_resolutions=(16,))
IMAGE = (16, 16, 1)


def loss_and_arguments(model, shape, remat):
    """A loss of a network's parameters, and its arguments as shapes."""
    spec = Spec(shape, 5, None, None, 50, remat)
    graphdef, params = nnx.split(nnx.eval_shape(lambda: model.build(spec, nnx.Rngs(0))))

    def loss(params, xt, t, key):
        return nnx.merge(graphdef, params)(xt, t, key=key).sum()

    xt = jax.ShapeDtypeStruct((32, *shape), jnp.int32)
    t = jax.ShapeDtypeStruct((32,), jnp.int32)
    return loss, (params, xt, t, jax.random.key(0))


def test_a_step_that_computes_blocks_again_keeps_their_inputs_alone():
    """What is kept for the backward pass, in bytes: 8.6 MB of 56.7."""

    def kept(remat):
        loss, (params, *others) = loss_and_arguments(U_NET, IMAGE, remat)
        backward = jax.eval_shape(
            lambda p, *others: jax.vjp(lambda p: loss(p, *others), p)[1], params, *others
        )
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(backward))

    assert kept(remat=True) < 0.16 * kept(remat=False)


@pytest.mark.slow
@pytest.mark.optimised
def test_a_step_that_computes_blocks_again_needs_less_memory():
    model = configs.Transformer(width=32, num_layers=6, num_heads=2)

    def temporary(remat):
        loss, arguments = loss_and_arguments(model, (64,), remat)
        compiled = jax.jit(jax.grad(loss)).lower(*arguments).compile(AS_LATE_AS_CAN_BE)
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(remat=True) < 0.45 * temporary(remat=False)


def test_either_field_of_a_config_switches_it_on():
    spec = Spec((6,), 5, None, None, 50)
    for of_model, of_train in ((False, False), (True, False), (False, True)):
        model = configs.Transformer(width=8, num_layers=1, num_heads=1, remat=of_model)
        made = nnx.eval_shape(lambda: model.build(spec._replace(remat=of_train), nnx.Rngs(0)))  # noqa: B023
        assert made.remat == (of_model or of_train)
