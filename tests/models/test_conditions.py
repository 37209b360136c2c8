"""Conditions of a U-Net: what each form does to the output, the names of its weights, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from d3pm_jax import config as configs
from d3pm_jax.config import Spec
from d3pm_jax.models.layers import enlarge
from d3pm_jax.weights import twin
from tests.models.small import images, initial, randomised, small

ONE_LEVEL = {"ch_mult": (1,), "num_res_blocks": 0, "attn_resolutions": ()}
VECTOR = (3,)
IMAGE = (4, 2, 2)  # for images of 8 x 8


def conditions(shape):
    """One condition for each of the two images."""
    return jnp.asarray(np.random.default_rng(0).normal(size=(2, *shape)), jnp.float32)


@pytest.mark.parametrize("shape", [pytest.param(VECTOR, marks=pytest.mark.slow), IMAGE])
def test_every_number_of_a_condition_matters_to_its_image_alone(shape):
    graphdef, params = randomised(small, **ONE_LEVEL, condition=shape)
    xt, t = images()

    def loss_of_first(params, condition):
        output = nnx.merge(graphdef, params)(xt, t, condition=condition)
        assert output.shape == (2, 8, 8, 1, 5)
        return (output[0] ** 2).sum()

    gradients = jax.jit(jax.grad(loss_of_first, argnums=(0, 1)))
    of_params, of_conditions = gradients(params, conditions(shape))
    assert np.all(of_conditions[0] != 0)
    assert np.all(of_conditions[1] == 0)
    if shape == VECTOR:
        of_weights = of_params["condition"]["kernel"][...]
    else:
        of_weights = of_params["conv_in"]["kernel"][...][:, :, 1:]
    assert np.all(of_weights != 0)


def test_a_vector_is_added_to_the_embedding_of_time():
    graphdef, params = randomised(small, **ONE_LEVEL, condition=VECTOR)
    xt, t = images()
    output = jax.jit(lambda params, condition: nnx.merge(graphdef, params)(xt, t, condition=condition))
    vector = conditions(VECTOR)[0]
    in_place_of_the_vector = params["temb2"]["bias"][...] + vector @ params["condition"]["kernel"][...]
    other_params = params | {"temb2": params["temb2"] | {"bias": nnx.Param(in_place_of_the_vector)}}
    actual = output(params, jnp.stack([vector, vector]))
    np.testing.assert_allclose(actual, output(other_params, jnp.zeros((2, 3))), rtol=1e-4, atol=1e-5)
    assert np.abs(actual - output(params, jnp.zeros((2, 3)))).max() > 1e-2


def test_an_image_comes_after_the_channels_of_the_input():
    graphdef, params = randomised(small, **ONE_LEVEL, condition=IMAGE)
    graphdef_without, _ = randomised(small, **ONE_LEVEL)
    xt, t = images()
    kernel = params["conv_in"]["kernel"][...]

    def with_kernel(kernel):
        return params | {"conv_in": params["conv_in"] | {"kernel": nnx.Param(kernel)}}

    @jax.jit
    def outputs(ignoring, without):
        ignored = nnx.merge(graphdef, ignoring)(xt, t, condition=conditions(IMAGE))
        return ignored, nnx.merge(graphdef_without, without)(xt, t)

    ignored, without = outputs(with_kernel(kernel.at[:, :, 1:].set(0.0)), with_kernel(kernel[:, :, :1]))
    np.testing.assert_allclose(ignored, without, rtol=1e-4, atol=1e-5)


def test_enlarged_images_repeat_rows_and_columns():
    image = jnp.array([[[[1], [2]], [[3], [4]]]], jnp.int32)
    expected = [[1, 1, 1, 2, 2, 2], [1, 1, 1, 2, 2, 2], [3, 3, 3, 4, 4, 4], [3, 3, 3, 4, 4, 4]]
    np.testing.assert_array_equal(enlarge(image, 4, 6)[0, :, :, 0], expected)


@pytest.mark.slow
def test_a_vector_adds_two_names_to_those_of_the_twin_and_changes_no_other_weight():
    _, params = initial(lambda: small(**ONE_LEVEL))
    _, params_with_vector = initial(lambda: small(**ONE_LEVEL, condition=VECTOR))
    state_dict = twin.to_torch(params_with_vector)
    assert state_dict.pop("condition.weight").shape == (32, 3)
    assert state_dict.pop("condition.bias").shape == (32,)
    for name, x in twin.to_torch(params).items():
        np.testing.assert_allclose(state_dict.pop(name), x, rtol=1e-6)
    assert not state_dict


def test_an_image_widens_the_first_convolution_alone():
    _, params = randomised(small, **ONE_LEVEL)
    _, params_with_image = randomised(small, **ONE_LEVEL, condition=IMAGE)
    shapes = {name: x.shape for name, x in twin.to_torch(params).items()}
    shapes_with_image = {name: x.shape for name, x in twin.to_torch(params_with_image).items()}
    assert shapes_with_image == shapes | {"conv_in.weight": (8, 3, 3, 3)}


@pytest.mark.parametrize("shape", [VECTOR, IMAGE])
def test_a_config_builds_the_network_for_the_condition_of_the_data(shape):
    model = configs.UNet(ch=8, groups=4, ch_mult=(1,), num_res_blocks=0, attn_resolutions=())
    spec = Spec((8, 8, 1), 5, None, None, 100, condition=shape)
    xt, t = images()
    network = nnx.eval_shape(lambda: model.build(spec, nnx.Rngs(0)))
    assert network.condition_shape == shape
    integers = jnp.ones((2, *shape), jnp.int32)
    output = nnx.eval_shape(lambda: model.build(spec, nnx.Rngs(0))(xt, t, condition=integers))
    assert (output.shape, output.dtype) == ((2, 8, 8, 1, 5), jnp.float32)


def test_a_spec_has_no_condition_and_no_sizes_by_default():
    assert Spec._fields[-2:] == ("condition", "sizes")
    assert Spec((8, 8, 1), 5, None, None, 100)[-2:] == (None, None)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ((), r"condition = \(\): it must be a vector \(D,\) or an image \(h, w, c\)"),
        ((4, 4), r"condition = \(4, 4\): it must be a vector"),
        ((2, 4, 4, 1), r"condition = \(2, 4, 4, 1\): it must be a vector"),
        ((0,), r"condition = \(0,\): it must be a vector"),
        ((3, 4, 1), "a condition of 3 x 4 cannot be enlarged to an image of 8 x 8: 8 and 8 must be"),
        ((4, 16, 1), "a condition of 4 x 16 cannot be enlarged to an image of 8 x 8"),
    ],
)
def test_a_shape_that_fits_no_network_is_named(condition, message):
    with pytest.raises(ValueError, match=message):
        small(condition=condition)


@pytest.mark.parametrize(
    ("condition", "shape", "message"),
    [
        (None, (2, 3), "a condition was passed to a network with condition = None: leave it out"),
        (VECTOR, None, r"the network needs a condition of shape \(2, 3\): pass condition"),
        (VECTOR, (2, 4), r"the condition has shape \(2, 4\): expected \(2, 3\)"),
        (VECTOR, (2, 3, 1), r"the condition has shape \(2, 3, 1\): expected \(2, 3\)"),
        (IMAGE, (2, 4, 4, 2), r"the condition has shape \(2, 4, 4, 2\): expected \(2, 4, 2, 2\)"),
    ],
)
def test_a_condition_of_another_shape_is_named(condition, shape, message):
    xt, t = images()
    inputs = {}
    if shape is not None:
        inputs["condition"] = jnp.zeros(shape)
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(lambda: small(**ONE_LEVEL, condition=condition)(xt, t, **inputs))


def test_images_of_another_size_than_the_network_was_made_for_are_named():
    xt = images()[0][:, :6]
    with pytest.raises(ValueError, match="a condition of 4 x 2 cannot be enlarged to an image of 6 x 8"):
        nnx.eval_shape(
            lambda: small(**ONE_LEVEL, condition=IMAGE)(xt, images()[1], condition=conditions(IMAGE))
        )
