"""A head that makes logits where they are read: the loss and gradients of logits in memory, or a refusal."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from d3pm_jax import config as configs, losses, projection
from d3pm_jax.data import Description
from d3pm_jax.errors import UserError
from d3pm_jax.program.parts import network
from d3pm_jax.training.diffusion import DiffusionLoss
from d3pm_jax.training.state import init_state
from d3pm_jax.training.step import make_loss_step
from tests import tiny

B, L, CATEGORIES, K, T = 4, 6, 5, 8, 10
TEXT = Description((L,), CATEGORIES, None, "text", padded=True, symbols=tuple("abcde"))
ALPHA = configs.Reciprocal()
MASKS = configs.Absorbing(K, T, ALPHA, K - 1)  # categories 5 and 6 are never in the data
UNIFORM = configs.Uniform(K, T, ALPHA)
SCORES = configs.ScoreHead()
REAL = configs.RealTimes()
STEPS = configs.LowDiscrepancy()
TRANSFORMER = configs.Transformer(width=8, num_layers=1, num_heads=2)
NO_TIME = dataclasses.replace(TRANSFORMER, see_time=False)
TIED = dataclasses.replace(NO_TIME, tied=True, remat=True)


class MasksAndOthers(configs.ContinuousAbsorbing):
    """Costs something at places that are no masks, which the class it derives from does not look at."""

    by_rows = True

    def terms(self, process, logits, x0, xt, t, p_t):
        terms = super().terms(process, logits, x0, xt, t, p_t)
        return terms._replace(loss=terms.loss + terms.ce)


CASES = {  # loss, process, network, head, times
    "masks": (configs.ContinuousAbsorbing(), MASKS, TIED, configs.Head(), REAL),
    "own terms of masks": (MasksAndOthers(), MASKS, TIED, configs.Head(), REAL),
    "scores": (configs.ScoreEntropy(), UNIFORM, TRANSFORMER, SCORES, REAL),
    "hybrid": (configs.HybridLoss(), MASKS, TRANSFORMER, configs.Head(), STEPS),
    "blocks": (configs.Blocks(block=3, low=0.6), MASKS, TIED, configs.Head(), REAL),
    "any order": (configs.AnyOrder(), MASKS, NO_TIME, configs.Head(), REAL),
    "scores of masks": (configs.ScoreEntropy(), MASKS, TRANSFORMER, SCORES, REAL),
    "hybrid, uniform": (configs.HybridLoss(), UNIFORM, TIED, configs.Head(), STEPS),
    "hybrid, as published": (configs.HybridLoss(belief="d3pm"), MASKS, TIED, configs.Head(), STEPS),
    "bound": (configs.StochasticBound(), UNIFORM, TRANSFORMER, configs.Head(), configs.Importance()),
    "uniform": (configs.ContinuousUniform(), UNIFORM, TRANSFORMER, configs.Head(residual=False), REAL),
    "flow matching": (configs.GeneralizedKL(), UNIFORM, TRANSFORMER, configs.Head(), REAL),
    "gidd": (
        configs.GIDD(0.2, weights="dynamic"),
        configs.Interpolating(K, T, K - 1, 0.2),
        TRANSFORMER,
        configs.Head(),
        REAL,
    ),
}
FAST = ("masks", "scores", "own terms of masks")


def split(loss, process, model, head, timesteps, description=TEXT):
    """The process of a config, and its network."""
    parts = {"loss": loss, "process": process, "model": model, "head": head, "timesteps": timesteps}
    config = dataclasses.replace(tiny.get_config(), **parts)
    built = process.build()
    extra_mask = configs.find_extra_mask(process, built, description.categories)
    return built, network.split_network(config, description, built, extra_mask)


def randomise(params):
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) * 0.3, x.dtype), params)


@pytest.mark.parametrize(
    "case", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in CASES]
)
def test_loss_and_gradients_are_those_of_logits_in_memory(case, monkeypatch):
    monkeypatch.setattr(projection, "PLACES_ON_CPU", 5)
    loss, process, model, head, timesteps = CASES[case]
    weight = jnp.asarray(np.arange(L) < np.arange(B)[:, None] + 3, jnp.float32)
    batch = {"x": jax.random.randint(jax.random.key(0), (B, L), 0, CATEGORIES), "weight": weight}
    after = []
    for projected in (False, True):
        head = dataclasses.replace(head, projected=projected)
        built, functions = split(loss, process, model, head, timesteps)
        params = randomise(jax.eval_shape(functions.init, jax.random.key(0)))
        training_loss = DiffusionLoss(loss, timesteps, functions.train_predict)
        sgd = optax.sgd(1.0)
        step = make_loss_step(training_loss, sgd, 0.9, accumulate=2)
        state = init_state(params, sgd, training_loss.start_history(built))
        after.append(step(state, built, batch, jax.random.key(2)))
    (plain, metrics), (made, metrics_of_made) = after
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(made), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5)
    # Cross entropies of places that are no masks, on whose logits the loss does not depend, are not made.
    if case in ("masks", "blocks", "any order"):
        assert 0 < metrics_of_made["ce"] < metrics.pop("ce")
    for name in metrics:
        np.testing.assert_allclose(metrics[name], metrics_of_made[name], rtol=1e-5, err_msg=name)


def test_categories_between_data_and_mask_change_no_bound():
    """That of K = 8 with two of them is the one of K = 6, from the same output at the tokens."""
    rng = np.random.default_rng(0)
    output = jnp.asarray(rng.normal(size=(30, K)), jnp.float32)
    x0 = jnp.asarray(rng.integers(0, CATEGORIES, 30), jnp.int32)
    t = jnp.asarray(rng.integers(1, T + 1, 30), jnp.int32)
    is_masked = jnp.asarray(rng.random(30) < 0.7)
    bounds = []
    for size in (CATEGORIES + 1, K):
        process = configs.Absorbing(size, T, ALPHA, size - 1).build()
        xt = jnp.where(is_masked, size - 1, x0)
        logits = configs.make_logits(configs.Head(), output[:, :size], xt, size, size - 1, TEXT)
        assert jnp.isneginf(logits).sum(axis=1).tolist() == [size - CATEGORIES] * 30
        bounds.append(losses.posterior_kl(process, logits, x0, xt, t, belief="leave_one_out"))
    np.testing.assert_allclose(*bounds, rtol=1e-6)
    scores = configs.make_logits(SCORES, output, xt, K, K - 1, TEXT)
    assert np.flatnonzero(np.isneginf(scores).any(axis=0)).tolist() == [5, 6]


class Own(nnx.Module):
    """A network of a user's own with the two methods, each of which may be another."""

    def __init__(self, model, K, rngs):
        self.table = nnx.Embed(K, 4, rngs=rngs)
        self.model = model

    def __call__(self, xt, t):
        return self.hidden(xt, t) @ self.table.embedding.T

    def hidden(self, xt, t):
        return self.table(xt[..., :1] if self.model.narrow else xt) + t[:, None, None]

    def projection(self):
        if self.model.pair:
            return self.table.embedding[...], None
        if self.model.K:
            return self.table.embedding[: self.model.K], None, True
        return self.table.embedding, None, True  # a variable, whose array is meant


@dataclasses.dataclass(frozen=True)
class OwnModel(configs.Model):
    narrow: bool = False
    pair: bool = False
    K: int | None = None

    def build(self, spec, rngs):
        return Own(self, spec.K, rngs)


class NoMethods(OwnModel):
    def build(self, spec, rngs):
        return nnx.Embed(spec.K, spec.K, rngs=rngs)


class OwnHead(configs.Head):
    def logits(self, output, xt, K):
        return output - jnp.roll(output, 1, axis=-2)


class OwnBound(configs.ContinuousAbsorbing):
    by_rows = True

    def of_bound(self):
        return OwnTerms()


class OwnTerms(configs.HybridLoss):
    def terms(self, process, logits, x0, xt, t, p_t):
        return super().terms(process, logits, x0, xt, t, p_t / p_t.sum())


class OwnCompute(configs.HybridLoss):
    by_rows = True

    def compute(self, process, network, x0, noise, weight):
        return super().compute(process, network, x0, noise, weight)


def halve(base, by_rows=False):
    """An objective with half the loss of another, as a user wrote it before heads projected."""

    def terms(self, process, logits, x0, xt, t, p_t):
        terms = type(base).terms(self, process, logits, x0, xt, t, p_t)
        return configs.Terms(terms.loss / 2, terms.kl, terms.ce)

    return type("Halved", (type(base),), {"terms": terms} | ({"by_rows": True} if by_rows else {}))()


def compute_loss(loss, split_for, head, timesteps):
    """The mean loss of a batch in a loop of one's own, by a network that a run with another loss may have."""
    built, functions = split(split_for, UNIFORM, TRANSFORMER, head, timesteps)
    params = randomise(jax.eval_shape(functions.init, jax.random.key(0)))
    training_loss = DiffusionLoss(loss, timesteps, functions.train_predict)
    batch = {"x": jax.random.randint(jax.random.key(0), (B, L), 0, CATEGORIES)}
    key = jax.random.key(1)
    noise = training_loss.draw_noise(built, key, 0, None, (B, L))
    return float(jax.jit(training_loss.compute)(params, None, built, batch, noise, key, B * L)[0])


def test_objectives_of_ones_own_may_change_the_terms_of_others():
    own = 1 / T + (1 - 1 / T) / K  # of x_0 at the last step but one
    prior = own * np.log(K * own) + (1 - own) * np.log(1 - 1 / T)
    for loss, head, timesteps, constant in (
        (configs.StochasticBound(), configs.Head(), STEPS, 0.0),
        (configs.ScoreEntropy(), SCORES, REAL, prior),
    ):
        whole, half = (compute_loss(x, loss, head, timesteps) for x in (loss, halve(loss)))
        assert half - constant == pytest.approx((whole - constant) / 2, rel=1e-5)


def test_terms_of_several_places_are_refused_in_a_loop_of_ones_own():
    head = configs.Head(projected=True)
    with pytest.raises(ValueError, match=r"^loss = Halved, which does not say by_rows = True, needs all log"):
        compute_loss(halve(configs.HybridLoss()), configs.HybridLoss(), head, STEPS)
    bound = configs.StochasticBound()
    with pytest.raises(ValueError, match=r"^loss = Halved, with terms of its own, needs all logits"):
        compute_loss(halve(bound, by_rows=True), bound, head, STEPS)


def test_a_network_of_ones_own_may_have_the_two_methods():
    xt = jnp.zeros((2, L), jnp.int32)
    logits = []
    for projected in (False, True):
        parts = (configs.HybridLoss(), UNIFORM, OwnModel(), configs.Head(projected=projected), STEPS)
        _, functions = split(*parts, dataclasses.replace(TEXT, padded=False))
        params = randomise(jax.eval_shape(functions.init, jax.random.key(0)))
        logits.append(projection.all_logits(functions.predict(params, xt, jnp.ones(2, jnp.int32))))
    np.testing.assert_allclose(*logits, rtol=1e-6)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"head": configs.LogisticHead(projected=True)}, "LogisticHead makes logits of 2 outputs: take Head"),
        ({"head": OwnHead(projected=True)}, "head = OwnHead does not say that its logits are those of each"),
        ({"loss": OwnBound()}, "loss = OwnTerms does not say that its terms are those of each place alone"),
        ({"process": configs.Autoregressive(K, L, 7)}, "places have processes or categories of their own"),
        ({"loss": OwnTerms()}, "loss = OwnTerms does not say that its terms are those of each place alone"),
        ({"loss": OwnCompute()}, "loss = OwnCompute has a compute of its own: define ask in its place"),
        ({"model": NoMethods()}, "but Embed defines no hidden: take Transformer, write the methods"),
        ({"model": OwnModel(pair=True)}, r"projection returns \(float32 \[8, 4\], None\): return a tuple"),
        ({"model": OwnModel(narrow=True)}, r"OwnModel: hidden is float32 \[2, 1, 4\], for x_t \[2, 6\]"),
        ({"model": OwnModel(K=5)}, "the kernel is of 5 categories, and the process has K = 8"),
    ],
)
def test_what_makes_no_logits_of_some_places_is_refused(parts, words):
    own = {"loss": configs.HybridLoss(), "process": UNIFORM, "model": OwnModel(), "timesteps": STEPS}
    with pytest.raises((ValueError, UserError), match=words) as error:
        split(
            **own | {"head": configs.Head(projected=True)} | parts,
            description=dataclasses.replace(TEXT, padded=False),
        )
    assert "\n" not in str(error.value)
