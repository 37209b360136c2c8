"""Likelihoods in one order, in some and in all, and conditionals, against sums over orders in NumPy."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax as d3pm
from d3pm_jax import enumeration, orders

TOLERANCE = 1e-12
close = functools.partial(np.testing.assert_allclose, rtol=TOLERANCE, atol=TOLERANCE)


class Network:
    """A table of log p by the whole partial example, in which a hidden element is category K."""

    def __init__(self, log_p, shape):
        self.log_p = log_p  # [(K + 1)^D, D, K]
        self.shape = shape
        _, self.D, self.K = log_p.shape
        self.strides = (self.K + 1) ** np.arange(self.D - 1, -1, -1)
        self.x = np.array(list(itertools.product(range(self.K), repeat=self.D)))  # [K^D, D]

    def fill_in(self, xt):
        return look_up(jnp.asarray(self.log_p), xt)

    def nats_in(self, x, places, visible=()):
        """-log p of the elements of x [N, D] in each order of places [M, n], of which some are visible."""
        is_visible = np.isin(np.arange(self.D), visible)
        state = np.where(is_visible, x, self.K) @ self.strides
        state = np.tile(state, (len(places), 1))  # [M, N]
        nats = np.zeros(state.shape)
        for place in places.T:
            category = x[:, place].T  # [M, N]
            nats -= self.log_p[state, place[:, None], category]
            state += (category - self.K) * self.strides[place][:, None]
        return nats

    def examples(self):
        return jnp.asarray(self.x.reshape(-1, *self.shape))


def look_up(log_p, xt):
    """Logits of x_0 from all of x_t, by a table; not normalised."""
    _, D, K = log_p.shape
    state = xt.reshape(len(xt), D) @ (K + 1) ** np.arange(D - 1, -1, -1)
    return (2 + log_p[state]).reshape(*xt.shape, K)


@jax.jit
def nats_in_orders(log_p, x0, order, given):
    """The chain rule of all examples in orders [M, *S], of what is not given: [M, N]."""
    mask_id = log_p.shape[-1]
    is_given = jnp.broadcast_to(given, x0.shape)

    def nats_in(order):
        order = orders.given_first(jnp.broadcast_to(order[None], x0.shape), is_given)
        nats = d3pm.chain_rule(lambda xt: look_up(log_p, xt), x0, order, mask_id)
        return jnp.where(is_given, 0.0, nats).reshape(len(x0), -1).sum(1)

    return jax.lax.map(nats_in, order)


@jax.jit
def nats_in_all_orders(log_p, x0):
    return orders.all_orders(lambda xt: look_up(log_p, xt), x0, log_p.shape[-1])


mixture = jax.jit(orders.mixture)
given_first = jax.jit(orders.given_first)
by_block = jax.jit(orders.by_block)
conditional = jax.jit(enumeration.conditional, static_argnames="K")


def make_random(D, K, shape):
    """A network in which nothing agrees with anything else; some categories are all but impossible."""
    logits = np.random.default_rng(D).normal(size=((K + 1) ** D, D, K)) * 2
    return Network(logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True), shape)


def make_consistent(D, K, shape):
    """The conditionals of one joint law."""
    p = np.random.default_rng(D).dirichlet(np.ones(K**D)).reshape((K,) * D)
    log_p = np.zeros(((K + 1) ** D, D, K))
    for n, state in enumerate(itertools.product(range(K + 1), repeat=D)):
        seen = p[tuple(slice(None) if k == K else slice(k, k + 1) for k in state)]
        for place in np.flatnonzero(np.array(state) == K):
            marginal = seen.sum(axis=tuple(i for i in range(D) if i != place))
            log_p[n, place] = np.log(marginal / marginal.sum())
    return Network(log_p, shape)


def mix(nats):
    return -np.log(np.exp(-nats).mean(0))


def as_order(places):
    """The numbers of an order [M, D] from the places in that order."""
    return np.argsort(places, axis=1) / places.shape[1]


@pytest.fixture(scope="module")
def of_eight():
    return make_random(8, 2, (2, 4))


@pytest.fixture(scope="module")
def of_four():
    return make_random(4, 3, (4,))


def permutations(n):
    return np.array(list(itertools.permutations(range(n))))


def in_each_order(network, order, given=False):
    """The kernel: nats [M, K^D] of all examples in orders [M, D], of what is not given if anything is."""
    given = np.broadcast_to(given, network.D).reshape(1, *network.shape)
    order = jnp.asarray(order.reshape(-1, *network.shape))
    return np.asarray(nats_in_orders(network.log_p, network.examples(), order, given))


def test_orders_and_mixtures_of_some_equal_enumeration(of_four, of_eight, x64):
    """All orders of four elements, and some of eight."""
    some = np.stack([np.random.default_rng(i).permutation(8) for i in range(5)])
    for network, places in ((of_four, permutations(4)), (of_eight, some)):
        expected = network.nats_in(network.x, places)
        nats = in_each_order(network, as_order(places))
        close(nats, expected)
        close(np.exp(-nats).sum(1), 1)

        nats_of_mixture, effective = mixture(nats)
        close(nats_of_mixture, mix(expected))
        close(np.exp(-nats_of_mixture).sum(), 1)
        p = np.exp(-expected)
        close(effective, p.sum(0) ** 2 / (p**2).sum(0))
        assert np.all(nats_of_mixture < nats.mean(0))


def test_all_orders_equal_enumeration_and_the_law_of_filling_in(of_four, of_eight, x64):
    for network, some in ((of_four, slice(None)), (of_eight, slice(0, None, 51))):
        nats = nats_in_all_orders(network.log_p, network.examples())
        close(nats[some], mix(network.nats_in(network.x[some], permutations(network.D))))
        law = enumeration.fill_in_law(network.fill_in, network.shape, network.K, network.K)
        assert law.dtype == np.float64
        close(law, -nats)
        close(np.exp(law).sum(), 1)


def test_a_mixture_of_orders_drawn_anew_is_unbiased_in_probability(of_four, x64):
    """Over all pairs of orders, each as likely; and its nats lie between those of one order and of all."""
    nats = of_four.nats_in(of_four.x, permutations(4))  # [24, 81]
    pairs = np.array(list(itertools.product(range(24), repeat=2)))
    of_two = np.asarray(mixture(nats[pairs.T]).nats)  # [576, 81]
    close(np.exp(-of_two).mean(0), np.exp(-mix(nats)))
    assert np.all(mix(nats) < of_two.mean(0))
    assert np.all(of_two.mean(0) < nats.mean(0))


GIVEN = {4: (1, 3), 8: (0, 2, 3, 6, 7)}


@pytest.mark.parametrize("name", ["of_four", "of_eight"])
def test_conditionals_equal_enumeration(name, request, x64):
    """Of one order, of the orders of the rest, and of Bayes' rule in the law of all orders."""
    network = request.getfixturevalue(name)
    D, x = network.D, network.x
    given = np.isin(np.arange(D), GIVEN[D])
    rest = np.flatnonzero(~given)
    orders_of_rest = rest[permutations(len(rest))]
    # What is given lies anywhere between, and is to come first.
    mixed = np.stack([np.random.default_rng(i).permutation(D) for i in range(len(orders_of_rest))])
    for row, order_of_rest in zip(mixed, orders_of_rest, strict=True):
        row[~given[row]] = order_of_rest
    places = np.stack([[*row[given[row]], *row[~given[row]]] for row in mixed])

    # (a) is p(x_0) by p(what is given), both of the law of one order.
    in_one = in_each_order(network, as_order(mixed), given)
    whole = network.nats_in(x, places)
    agree = np.all(x[:, None, given] == x[None, :, given], axis=-1)  # [N, N]
    close(in_one, whole + np.log(np.exp(-whole) @ agree))

    # (b) has what is given visible from the start.
    of_infilling = mixture(in_one).nats
    close(of_infilling, mix(network.nats_in(x, orders_of_rest, visible=GIVEN[D])))

    # (c) is of the law of all orders.
    law = -np.asarray(nats_in_all_orders(network.log_p, network.examples()))
    is_given = jnp.broadcast_to(given.reshape(network.shape), (len(x), *network.shape))
    by_bayes = conditional(law, network.examples(), is_given, K=network.K)
    close(by_bayes, np.log(agree @ np.exp(law)) - law)
    assert np.abs(of_infilling - by_bayes).max() > 0.1


def test_of_a_consistent_network_all_orders_are_one_law(x64):
    """So that infilling and Bayes' rule agree, and every order counts alike."""
    network = make_consistent(4, 3, (2, 2))
    given = np.array([False, True, False, True])
    nats = in_each_order(network, as_order(permutations(4))[::5], given)
    law = enumeration.fill_in_law(network.fill_in, network.shape, 3, 3)
    p = np.random.default_rng(4).dirichlet(np.ones(81))
    close(law, np.log(p))
    is_given = jnp.broadcast_to(given.reshape(2, 2), (81, 2, 2))
    of_infilling, effective = mixture(nats)
    close(of_infilling - conditional(law, network.examples(), is_given, K=3), 0)
    close(effective, len(nats))


def test_a_law_never_drawn_is_infinite_and_not_nan(x64):
    law = np.log([0.5, 0.5, 1e-300, 1e-300])
    law[2:] = -np.inf
    x0 = enumeration.list_examples((2,), 2)
    nothing = jnp.zeros((4, 2), bool)
    both = jnp.ones((4, 2), bool)
    first = jnp.array([[True, False]] * 4)
    inf = np.inf
    for given, expected in (
        (nothing, [math.log(2), math.log(2), inf, inf]),
        (first, [math.log(2), math.log(2), inf, inf]),
        (both, [0, 0, inf, inf]),
    ):
        close(conditional(law, x0, given, K=2), expected)
    gradient = jax.jit(jax.grad(lambda law: jnp.sum(enumeration.conditional(law, x0, first, 2)[:2])))
    close(gradient(jnp.asarray(law)), [0, 0, 0, 0])


def test_a_mixture_is_stable_in_float32():
    """Hundreds of nats, tens apart, and laws that say 0: value and gradient."""
    nats = 500 + np.random.default_rng(0).uniform(0, 90, (6, 7)).astype(np.float32)
    nats[1:3, 2:] = np.inf
    nats[:, 6] = np.inf
    exact = nats.astype(np.float64)
    low = exact.min(0)
    weights = np.exp(np.where(np.isinf(low), 0, low) - exact)
    total = weights.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = low - np.log(total / 6)
        expected_effective = np.where(total > 0, total**2 / (weights**2).sum(0), 0)
        expected_gradient = np.where(total > 0, weights / total, 0)

    @jax.jit
    def value_and_gradient(x):
        def total(x):
            nats, effective = orders.mixture(x)
            return jnp.sum(nats[:6]) + jnp.sum(effective)

        return orders.mixture(x), jax.grad(total)(x)

    (nats_of_mixture, effective), gradient = value_and_gradient(jnp.asarray(nats))
    np.testing.assert_allclose(nats_of_mixture, np.where(total > 0, expected, np.inf), rtol=2e-7)
    np.testing.assert_allclose(effective, expected_effective, rtol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-4)
    of_16_bits = jax.eval_shape(orders.mixture, jnp.zeros(3, jnp.float16))
    assert (of_16_bits.nats.shape, of_16_bits.nats.dtype) == ((), np.float32)


def test_orders_begin_with_what_is_given_and_go_by_block():
    """Also where numbers are equal, or as small as floats are."""
    rng = np.random.default_rng(0)
    order = rng.choice([0, 2e-38, 3e-38, 0.5, np.nextafter(np.float32(1), 0)], (5, 3, 4)).astype(np.float32)
    given = jnp.asarray(rng.random(order.shape) < 0.4)
    result = np.asarray(given_first(order, given)).reshape(5, 12)
    for b in range(5):
        keys = list(zip(~np.asarray(given[b]).ravel(), order[b].ravel(), range(12), strict=True))
        np.testing.assert_array_equal(result[b].argsort(), [key[2] for key in sorted(keys)])
    assert result.min() == 0
    assert result.max() < 1

    result = np.asarray(by_block(order[:, :, 0], order)).reshape(5, 12)
    for b in range(5):
        keys = [(order[b, f, 0], f, order[b, f, i], i) for f in range(3) for i in range(4)]
        places = [4 * f + i for _, f, _, i in sorted(keys)]
        np.testing.assert_array_equal(result[b].argsort(), places)
    assert jax.eval_shape(by_block, order[:, :, 0], order[:, :, 0]).shape == (5, 3)


def test_examples_of_no_elements_have_one_order(x64):
    for shape in ((0, 3), (2, 0)):
        nats = orders.all_orders(lambda xt: jnp.zeros((*xt.shape, 2)), jnp.zeros(shape, int), 2)
        np.testing.assert_array_equal(nats, np.zeros(shape[0]))
    np.testing.assert_array_equal(enumeration.fill_in_law(None.__eq__, (0,), 2, 2), [0.0])
    single = enumeration.fill_in_law(lambda xt: jnp.zeros((*xt.shape, 3)), (), 2, 2)
    close(single, [-math.log(3)] * 2)
    assert orders.given_first(np.zeros((2, 0)), jnp.zeros((2, 0), bool)).shape == (2, 0)


def zeros(xt):
    return jnp.zeros((*xt.shape, 2))


def in_jit():
    return jax.jit(lambda scale: enumeration.fill_in_law(lambda xt: scale * zeros(xt), (2,), 2, 2))(1.0)


REFUSED = {
    "17 elements": (
        lambda: orders.all_orders(zeros, jnp.zeros((1, 17), int), 2),
        r"x0 has D = 17 elements, and all orders of more than 16 are too many: take the mixture of some, ",
    ),
    "no law": (
        lambda: orders.mixture(np.zeros((0, 2))),
        r"nats has shape \(0, 2\), M = 0 laws: a mixture needs",
    ),
    "another shape of what is given": (
        lambda: orders.given_first(np.zeros((2, 3)), np.zeros((2, 4), bool)),
        r"given has shape \(2, 4\), expected \[2, 3\] as in order",
    ),
    "an order of whole numbers": (
        lambda: orders.given_first(np.arange(3)[None], jnp.zeros((1, 3), bool)),
        r"order has dtype int64, expected floats",
    ),
    "an order from 1 on": (
        lambda: orders.by_block(np.array([[0.0, 1.0]]), np.zeros((1, 2, 3))),
        r"block_order contains 1.0, outside \[0, 1\)",
    ),
    "blocks of another number": (
        lambda: orders.by_block(np.zeros((1, 3)), np.zeros((1, 2, 3))),
        r"inner_order has shape \(1, 2, 3\), expected \[1, 3, \*R\] as in block_order",
    ),
    "a billion states": (
        lambda: enumeration.fill_in_law(zeros, (30,), 2, 2),
        r"shape = \(30,\) has 3\^30 partial examples, more than 2,000,000: take fewer elements, or estimate",
    ),
    "a shape that no number holds": (
        lambda: enumeration.list_examples((10**6, 10**3), 2),
        r"shape = \(1000000, 1000\) has 2\^1000000000 examples, more than 2,000,000",
    ),
    "too few logits": (
        lambda: enumeration.fill_in_law(zeros, (2,), 3, 3),
        r"fill_in\(xt\) has shape \(16, 2, 2\), and K = 3: return a float logit of each category",
    ),
    "logits that are NaN": (
        lambda: enumeration.fill_in_law(lambda xt: zeros(xt) * jnp.nan, (2,), 2, 2),
        r"fill_in\(xt\) contains nan: it must be finite, or -inf",
    ),
    "under jit": (in_jit, r"fill_in\(xt\) is traced by jit: call fill_in_law outside of it"),
    "another K than that of the law": (
        lambda: enumeration.conditional(np.full(8, -2.0), np.zeros((1, 3), int), jnp.zeros((1, 3), bool), 3),
        r"log_law has shape \(8,\), expected K\^D = 3\^3 entries",
    ),
    "a law that is no logs": (
        lambda: enumeration.conditional(np.full(8, 0.125), np.zeros((1, 3), int), jnp.zeros((1, 3), bool), 2),
        r"log_law contains 0.125, outside \(?\[?-inf, 0.001",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_means_nothing_is_refused_in_one_line(case):
    call, said = REFUSED[case]
    with pytest.raises((TypeError, ValueError), match=f"^{said}") as refused:
        call()
    assert "\n" not in str(refused.value)
