"""Argmax flows: densities, inverses, what numbers depend on, and what they draw."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from d3pm_jax import flows
from d3pm_jax.models.argmax_flows import ArgmaxAR, ArgmaxCoupling
from d3pm_jax.models.features import LSTMFeatures, TransformerFeatures, UNetFeatures
from tests.models.small import randomised

LSTM = partial(LSTMFeatures, width=8, num_layers=1, input_dropout=0.5)
TRANSFORMER = partial(TransformerFeatures, width=4, num_layers=1, num_heads=1, dropout=0.5)
OPTIONS = {"num_mixtures": 2, "context_width": 4}

_rng = np.random.default_rng(1)
# x, u and normal noise.
SEQUENCES = ([[0, 1, 2], [3, 4, 0]], _rng.uniform(size=(2, 3)), _rng.normal(size=(2, 3, 3)))


def coupling(length, K, **options):
    return ArgmaxCoupling(length, K, num_steps=2, **OPTIONS, **options, rngs=nnx.Rngs(0))


def autoregressive(length, K, **options):
    return ArgmaxAR(length, K, **OPTIONS, **options, rngs=nnx.Rngs(0))


def make_lstm_or_transformer():
    """Makes an LSTM first, then a Transformer, and so on, so that the steps of a flow have both."""
    kinds = itertools.cycle([LSTM, TRANSFORMER])
    return lambda *sizes, rngs: next(kinds)(*sizes, rngs=rngs)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("build", [coupling, pytest.param(autoregressive, marks=pytest.mark.slow)])
def test_density_inverse_and_gradient(build):
    """The Jacobian has the log-determinant that is returned, and is triangular where numbers come in turn."""
    graphdef, params = randomised(lambda: build(3, 5, make_features=make_lstm_or_transformer()))
    params = jax.tree.map(lambda x: x.astype(jnp.float64), params)
    x, u, normal = map(jnp.asarray, SEQUENCES)

    @jax.jit
    def run(params):
        flow = nnx.merge(graphdef, params)
        v, log_q = flow.encode(x, u, normal)

        def transform(v):
            z, log_det = flow.transform(v)
            return z[0].ravel(), (z, log_det)

        _, pull_back, (z, log_det) = jax.vjp(transform, v, has_aux=True)
        jacobian = jax.vmap(pull_back)(jnp.eye(9))[0][:, 0].reshape(9, 9)

        def weigh(params):
            return nnx.merge(graphdef, params).log_weights(x, u, normal, key=jax.random.key(0)).mean()

        with_dropout, gradient = jax.value_and_grad(weigh)(params)
        bound = flow.log_base(z) + log_det - log_q
        inverse = flow.invert(z)
        with pytest.MonkeyPatch.context() as patch:
            # Of itself it would invert once more.
            inverses = {id(z): inverse}
            patch.setattr(type(flow), "invert", lambda self, z: inverses[id(z)])
            decoded = flow.decode(z)
        return gradient, v, inverse, decoded, log_det[0], jacobian, bound.mean(), with_dropout

    gradient, *arrays = run(params)
    v, inverse, decoded, log_det, jacobian, bound, with_dropout = map(np.asarray, arrays)
    np.testing.assert_allclose(inverse, v, atol=1e-9)
    np.testing.assert_array_equal(decoded, x)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian).logabsdet, rtol=1e-9)
    assert abs(bound - with_dropout) > 1e-6
    if build is autoregressive:
        assert not np.triu(jacobian, 1).any()
        assert jacobian[np.tril_indices(9)].all()
    for path, g in jax.tree_util.tree_flatten_with_path(gradient)[0]:
        assert np.isfinite(g).all(), jax.tree_util.keystr(path)
        assert np.any(g != 0), jax.tree_util.keystr(path)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_flow_of_images_by_a_unet():
    """Squeezed along rows, as two categories have one digit: the inverse, and the determinant of autodiff."""
    unet = partial(UNetFeatures, ch=2, ch_mult=(1,), num_res_blocks=0, groups=1)
    build = partial(coupling, (2, 4, 1), 2, make_features=unet, squeeze=2)
    graphdef, params = randomised(build)
    params = jax.tree.map(lambda x: x.astype(jnp.float64), params)
    x = jnp.asarray(_rng.integers(0, 2, (1, 2, 4, 1)))
    normal = jnp.asarray(_rng.normal(size=(1, 2, 4, 1, 1)))

    @jax.jit
    def run(params):
        flow = nnx.merge(graphdef, params)
        v, _ = flow.encode(x, jnp.zeros(x.shape), normal)
        z, log_det = flow.transform(v)
        jacobian = jax.jacrev(lambda v: flow.transform(v)[0])(v).reshape(8, 8)
        return v, z.shape, flow.invert(z), flow.decode(z), log_det, jacobian

    v, shape, inverse, decoded, log_det, jacobian = run(params)
    assert shape == (1, 2, 2, 2)
    np.testing.assert_allclose(inverse, v, atol=1e-9)
    np.testing.assert_array_equal(decoded, x)
    np.testing.assert_allclose(log_det[0], np.linalg.slogdet(jacobian).logabsdet, rtol=1e-9)
    # A pixel sees another row through the U-Net.
    assert np.abs(np.asarray(jacobian)[:4, 4:]).max() > 1e-9


@pytest.mark.usefixtures("x64")
def test_a_causal_transformer_takes_one_place_after_the_other():
    """The inverse knows only the vectors before a place, and finds those that were transformed at once."""
    graphdef, params = randomised(lambda: autoregressive(3, 5, make_features=TRANSFORMER))
    params = jax.tree.map(lambda x: x.astype(jnp.float64), params)

    @jax.jit
    def run(params):
        flow = nnx.merge(graphdef, params)
        v, _ = flow.encode(*map(jnp.asarray, SEQUENCES))
        z, _ = flow.transform(v)
        return v, z, flow.invert(z)

    v, z, inverse = run(params)
    assert np.abs(z - v).min() > 1e-3
    np.testing.assert_allclose(inverse, v, atol=1e-9)


@pytest.mark.parametrize(
    ("build", "share_codes"),
    [
        pytest.param(
            partial(coupling, squeeze=2), True, id="every code has a meaning", marks=pytest.mark.slow
        ),
        pytest.param(autoregressive, False, id="codes without meaning"),
    ],
)
def test_probabilities_sum_to_one(build, share_codes):
    """P(x) of all sequences of three categories, by weights; codes without meaning take their share of it."""
    L, n, drawn = 2, 2000, 5000
    graphdef, params = randomised(lambda: build(L, 3, make_features=LSTM, share_codes=share_codes))
    # A wide encoder, as weights have a finite variance only up to where its tails end.
    bias = params["encoder"]["linear_out"]["bias"]
    bias.set_value(bias.get_value().at[2:].set(1.2))
    for matrix in jax.tree.leaves(params.get("matrices", {}), is_leaf=lambda x: isinstance(x, nnx.Param)):
        matrix.set_value(matrix.get_value() + jnp.eye(4))
    x = jnp.repeat(jnp.stack(jnp.divmod(jnp.arange(9), 3), axis=-1), n, axis=0)  # [9 n, L]

    @jax.jit
    def run(params, key):
        flow = nnx.merge(graphdef, params)
        code_key, encoder_key, draw_key = jax.random.split(key, 3)
        u = jax.random.uniform(code_key, x.shape)
        normal = jax.random.normal(encoder_key, (*x.shape, 2))
        return flow.log_weights(x, u, normal), flow.draw(jax.random.normal(draw_key, (drawn, L, 2)))

    log_weights, symbols = map(np.asarray, run(params, jax.random.key(2)))
    weights = np.exp(log_weights.reshape(9, n))
    iwbo = flows.importance_bound(jnp.asarray(log_weights.reshape(9, n).T))
    np.testing.assert_allclose(np.exp(iwbo), weights.mean(1), rtol=1e-4)
    outside = np.mean((symbols >= 3).any(-1))
    error = np.sqrt((weights.var(1) / n).sum() + outside * (1 - outside) / drawn)
    assert error < 0.04
    assert abs(weights.mean(1).sum() + outside - 1) < 4 * error

    # The shares of what was drawn are the probabilities.
    assert symbols.min() == 0
    assert (symbols.max() == 2) == share_codes
    shares = np.mean((symbols[:, None] == np.asarray(x[None, ::n])).all(-1), axis=0)
    np.testing.assert_allclose(shares, weights.mean(1), atol=0.05)


def test_what_cannot_be_built_or_called_is_refused():
    with pytest.raises(ValueError, match=r"K = 2 has one digit, .* take squeeze = 2"):
        nnx.eval_shape(lambda: coupling(4, 2))
    with pytest.raises(ValueError, match="squeeze = 3 does not divide the 4 places"):
        nnx.eval_shape(lambda: coupling(4, 5, squeeze=3))
    with pytest.raises(ValueError, match=r"shape = \(2, 2\): it must be \[L\] of sequences, or \[H, W, C\]"):
        nnx.eval_shape(lambda: coupling((2, 2), 5))
    with pytest.raises(ValueError, match="context = 'lstm' reads sequences"):
        nnx.eval_shape(lambda: coupling((2, 2, 1), 5, context="lstm"))
    with pytest.raises(ValueError, match="causal = True: a U-Net sees all pixels"):
        nnx.eval_shape(lambda: UNetFeatures((4, 4), 2, True, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="which goes through no sequence"):
        nnx.eval_shape(
            lambda: autoregressive(
                4, 5, make_features=lambda *sizes, rngs: UNetFeatures((4, 4), 2, False, rngs=rngs)
            )
        )
    with pytest.raises(ValueError, match="width = 4: an eighth of it embeds the place"):
        nnx.eval_shape(lambda: autoregressive(4, 5, make_features=partial(LSTM, width=4)))
    with pytest.raises(ValueError, match="width = 4 does not divide into 4 heads"):
        nnx.eval_shape(lambda: autoregressive(4, 5, make_features=partial(TRANSFORMER, num_heads=4)))
    with pytest.raises(
        ValueError, match=r"make_features returns dict, .* derive it from models.SequenceFeatures"
    ):
        nnx.eval_shape(lambda: autoregressive(4, 5, make_features=lambda *sizes, rngs: {}))
    flow = nnx.eval_shape(lambda: autoregressive(3, 5, make_features=LSTM))
    x = jnp.zeros((1, 3), jnp.int32)
    with pytest.raises(ValueError, match=r"normal has shape \(1, 3, 2\), expected \(1, 3, 3\)"):
        flow.log_weights(x, jnp.zeros((1, 3)), jnp.zeros((1, 3, 2)))
    with pytest.raises(ValueError, match=r"normal has shape \(1, 4, 3\), expected \(1, 3, 3\)"):
        flow.draw(jnp.zeros((1, 4, 3)))
    with pytest.raises(ValueError, match="z contains nan: it must be finite"):
        flow.decode(jnp.full((1, 3, 3), jnp.nan))
    with pytest.raises(ValueError, match="x contains 5"):
        flow.log_weights(x + 5, jnp.zeros((1, 3)), jnp.zeros((1, 3, 3)))


def test_what_an_inverse_did_not_find_is_no_category(monkeypatch):
    flow = nnx.eval_shape(lambda: autoregressive(3, 5, make_features=LSTM))
    v = jnp.ones((1, 3, 3)).at[0, 1, 2].set(jnp.nan)
    monkeypatch.setattr(type(flow), "invert", lambda self, z: v)
    np.testing.assert_array_equal(flow.decode(jnp.zeros((1, 3, 3))), [[2, -1, 2]])


def test_features_of_another_width_are_refused():
    def compute_params():
        flow = autoregressive(3, 5, make_features=LSTM)
        flow.features.out_features = 3
        return flow.params(jnp.zeros((1, 3, 3)))

    with pytest.raises(
        ValueError, match=r"LSTMFeatures returns features of shape \(1, 3, 4\), expected \(1, 3, 3\)"
    ):
        nnx.eval_shape(compute_params)
