# %% [markdown]
# # A tour of the library, on chains small enough to sum by hand
#
# The kernels are pure functions of arrays and of a forward process. This notebook goes through them on
# processes of a few categories, where every probability can be written out: matrices and Bayes' rule, a
# process of your own matrices, the two things that logits of x_0 may mean, and the exact likelihood of a
# whole reverse chain beside its bound. No network is trained; it takes seconds. Change `K`, `T` (at least 10
# in the first part) and the laws of x_0: what is asserted stays true as long as the sums over K^2 states fit.
#
# It needs, in the clone, `pip install -e '.[notebooks]'`, not the trainer.

# %%
import itertools

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import d3pm_jax as d3pm
from d3pm_jax import beliefs

jax.config.update("jax_enable_x64", True)  # to compare with sums by hand to the last digits

# %% [markdown]
# ## A process
#
# A forward process replaces x_{t-1} by x_t, each element on its own, with the matrix Q_t: `Q[i, j]` is the
# probability of x_t = j where x_{t-1} = i. `Qbar(t)` is Q_1 .. Q_t, so its row x_0 is the law of x_t given
# x_0. Rows are "from", columns "to". The pictures show Qbar of three processes after 6 of 20 steps: uniform
# noise spreads a category over all others alike, ordinal noise over its neighbours, and absorbing noise sends
# it to a mask, the last column.

# %%
K = 8
T = 20
processes = {
    "uniform": d3pm.uniform(d3pm.cosine(T), K),
    "gaussian": d3pm.gaussian(d3pm.linear(T, 0.02, 0.9), K),
    "absorbing": d3pm.absorbing(d3pm.reciprocal(T), K, mask_id=K - 1),
}
figure, axes = plt.subplots(1, 3, figsize=(8, 2.8), layout="constrained")
for axis, (name, process) in zip(axes, processes.items(), strict=True):
    axis.imshow(process.Qbar(jnp.asarray(6)), vmin=0, vmax=1, cmap="Blues")
    axis.set(title=f"{name}, t = 6 of {T}", xlabel="$x_t$", ylabel="$x_0$")
plt.show()

# %% [markdown]
# The matrices are for looking. A uniform or absorbing process never makes one: its kernels cost O(K) for each
# element, also at K = 50,000. But they are the definition that each kernel is held to, as here: q(x_{t-1}
# given x_t, x_0) by Bayes' rule from the matrices, beside `q_posterior`.

# %%
for process in processes.values():
    x0 = jnp.asarray(2)
    xt = jnp.asarray(K - 1)
    t = jnp.asarray(5)
    Q = np.asarray(process.Q(t))
    before = np.asarray(process.Qbar(t - 1))
    Qbar = np.asarray(process.Qbar(t))
    by_hand = before[x0] * Q[:, xt] / Qbar[x0, xt]  # q(x_{t-1} | x_0) q(x_t | x_{t-1}) / q(x_t | x_0)
    log_posterior = d3pm.q_posterior(process, x0, xt, t)  # log probabilities
    np.testing.assert_allclose(np.exp(log_posterior), by_hand, atol=1e-12)

# %% [markdown]
# ## Draws take their noise as an argument
#
# `q_sample` gives x_t of x_0 from one uniform number for each element, so the same noise gives the same x_t:
# in every batch, on every machine, and in PyTorch. Functions with a `key` only draw the uniforms and call
# these. A thousand draws of x_10 from x_0 = 2:

# %%
u = jax.random.uniform(jax.random.key(0), (1000,))
x0 = jnp.full(1000, 2)
for name, process in processes.items():
    xt = d3pm.q_sample(process, x0, jnp.asarray(10), u)
    print(f"{name:>9}", np.bincount(xt, minlength=K))

# %% [markdown]
# ## A loss for a network
#
# A network gives logits of x_0 for every element of x_t. The hybrid loss is the KL divergence of the true
# reverse step from the one that the logits make, plus `ce_weight` times the cross entropy of x_0; per
# element, in nats. Here for random logits of a batch of 4 examples with 6 elements, each example at its own
# t, and its gradient.

# %%
process = processes["uniform"]
key_x, key_u, key_logits = jax.random.split(jax.random.key(1), 3)
x0 = jax.random.randint(key_x, (4, 6), 0, K)
t = jnp.array([1, 5, 10, T])
xt = d3pm.q_sample(process, x0, t, jax.random.uniform(key_u, x0.shape))
logits = jax.random.normal(key_logits, (4, 6, K))


def loss(logits):
    return d3pm.hybrid(process, logits, x0, xt, t, ce_weight=0.01).loss.mean()


value, gradient = jax.value_and_grad(loss)(logits)
print(f"loss {value:.4f} nats, gradient {gradient.shape}")
np.testing.assert_allclose(gradient.sum(-1), 0, atol=1e-12)  # logits count up to a constant

# %% [markdown]
# ## Your own matrices
#
# `dense` takes any row-stochastic matrices [T, K, K]. Five categories on a circle, each step moves one place
# to the right with a probability that grows: none of the built-in families. Everything else, from the
# posterior to the bound and the chain, works on it at once.

# %%
move = np.linspace(0.1, 0.7, 30)
circle = np.stack([(1 - p) * np.eye(5) + p * np.roll(np.eye(5), 1, axis=1) for p in move])
walk = d3pm.dense(circle)
np.testing.assert_allclose(walk.Qbar(jnp.asarray(3)), circle[0] @ circle[1] @ circle[2], atol=1e-12)

t = jnp.arange(31)
rows = np.exp(walk.log_q_probs(jnp.zeros(31, int), t))  # the law of x_t given x_0 = 0, [T + 1, K]
plt.figure(figsize=(6, 2.6), layout="constrained")
plt.plot(t, rows, label=[f"$x_t$ = {k}" for k in range(5)])
plt.xlabel("t")
plt.ylabel("$q(x_t | x_0 = 0)$")
plt.title("steps around a circle of five categories")
plt.legend(fontsize=8)
plt.show()
print(f"prior KL {d3pm.prior_kl(walk, jnp.asarray(0)):.1e} nats: x_T has forgotten x_0")

# %% [markdown]
# ## What logits of x_0 are
#
# Take D = 2 elements whose values depend on each other: a law of x_0 over all K^D states. A network that has
# learnt everything about it can tell two different things of an element:
#
# - the **denoiser** p(x_0 | x_t), from all elements of x_t;
# - the **leave-one-out posterior** p(x_0 | x_t of the other elements).
#
# Both follow from sums over the states. `beliefs.to_leave_one_out` makes the second of the first, by taking
# off log q(x_t | x_0) of the element itself.

# %%
K = 3
D = 2
T = 12
process = d3pm.uniform(d3pm.cosine(T), K)
states = np.array(list(itertools.product(range(K), repeat=D)))  # [S, D], S = K^D
law = np.random.default_rng(0).dirichlet(np.full(len(states), 0.3))  # p(x_0) of each


def log_q(process, t):
    """log q(x_t = s | x_0 = r) of each element, [r, s, D]."""
    rows = process.log_q_probs(jnp.asarray(states), jnp.asarray(t))  # [r, D, K]
    return np.stack([rows[:, d, states[:, d]] for d in range(D)], axis=-1)


def marginals(weights):
    """Of weights [s, r] of states r, the law of each element: [s, D, K]."""
    one_hot = np.eye(K)[states]  # [r, D, K]
    marginal = np.einsum("sr,rdk->sdk", weights, one_hot)
    return marginal / marginal.sum(-1, keepdims=True)


def denoiser(process, law, t):
    """p(x_0 = k | x_t = s) of each element, [s, D, K]."""
    return marginals((law[:, None] * np.exp(log_q(process, t).sum(-1))).T)


t = 6
likelihood = np.exp(log_q(process, t))
others = [
    marginals((law[:, None] * likelihood[:, :, 1 - d]).T)[:, d] for d in range(D)
]  # without the element's own x_t
leave_one_out = np.stack(others, axis=1)
logits_loo = beliefs.to_leave_one_out(
    process, jnp.log(denoiser(process, law, t)), jnp.asarray(states), jnp.asarray(t)
)
np.testing.assert_allclose(jax.nn.softmax(logits_loo), leave_one_out, atol=1e-10)

s = 1
print("x_t =", states[s])
print("denoiser of the first element       ", denoiser(process, law, t)[s, 0].round(3))
print("leave-one-out posterior of the same ", leave_one_out[s, 0].round(3))

# %% [markdown]
# Each has its own formula of the reverse step p(x_{t-1} | x_t), and with it both are exact. The formula of
# D3PM is that of the leave-one-out posterior; given the denoiser, which cross entropy trains, it counts x_t
# twice. `belief` says which the logits are. The exact step is the sum over x_0 of q(x_{t-1} | x_t, x_0) p(x_0
# | x_t):

# %%
xt = jnp.asarray(states)
log_denoiser = jnp.log(denoiser(process, law, t))
log_loo = jnp.log(leave_one_out)
candidates = jnp.broadcast_to(jnp.arange(K), (*xt.shape, K))
posteriors = jnp.exp(d3pm.q_posterior(process, candidates, jnp.repeat(xt[..., None], K, -1), jnp.asarray(t)))
exact = jnp.einsum("sdk,sdkj->sdj", jnp.exp(log_denoiser), posteriors)

for name, logits in {"denoiser": log_denoiser, "leave_one_out": log_loo}.items():
    step = jnp.exp(d3pm.p_logits(process, logits, xt, jnp.asarray(t), belief=name))
    np.testing.assert_allclose(step, exact, atol=1e-10)
mixed = jnp.exp(d3pm.p_logits(process, log_denoiser, xt, jnp.asarray(t), belief="d3pm"))
print(f"the denoiser in the formula of D3PM: wrong by up to {jnp.abs(mixed - exact).max():.2f}")

# %% [markdown]
# ## The likelihood of a chain, and its bound
#
# Now the whole reverse chain with such a perfect network. Given x_t, a step draws the elements independently
# of each other, each from its exact law. That is the one thing it cannot do right: in the data the elements
# go together. With more steps, each of which changes little, it matters less.
#
# On K^D states the chain is a product of matrices, so p(x_0) is exact: p(x_T) P_T .. P_1. The bound that
# networks are trained and judged by is the sum of the prior KL and of E_q KL(q(x_{t-1} | x_t, x_0) ||
# p(x_{t-1} | x_t)), here with the expectation over x_t as a sum too.

# %%
pair = np.where(states[:, 0] == states[:, 1], 1.0 / K, 0.0)  # two elements that are always the same


def chain_and_bound(T):
    """E[-log p(x_0)] of the chain of T steps, and of its bound, in nats."""
    process = d3pm.uniform(d3pm.cosine(T), K)
    p = np.exp(np.asarray(process.log_prior()))[states].prod(-1)  # of x_T
    bound = np.asarray(d3pm.prior_kl(process, jnp.asarray(states))).sum(-1)  # [S], of each x_0
    clean, noisy = np.broadcast_arrays(states[:, None], states[None])  # [r, s, D]
    x0 = jnp.asarray(clean)
    xt = jnp.asarray(noisy)
    for t in range(T, 0, -1):
        logits = jnp.log(denoiser(process, pair, t))  # [s, D, K]
        step = np.exp(d3pm.p_logits(process, logits, jnp.asarray(states), jnp.asarray(t), belief="denoiser"))
        p = p @ np.stack([step[:, d, states[:, d]] for d in range(D)]).prod(0)
        every = jnp.broadcast_to(logits, (len(states), *logits.shape))
        kl = d3pm.posterior_kl(process, every, x0, xt, jnp.asarray(t), belief="denoiser").sum(-1)  # [r, s]
        bound += (np.exp(log_q(process, t).sum(-1)) * np.asarray(kl)).sum(1)
    seen = pair > 0
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-10)
    assert (bound[seen] >= -np.log(p[seen]) - 1e-10).all()  # a bound for every x_0
    return -(pair[seen] * np.log(p[seen])).sum(), (pair[seen] * bound[seen]).sum()


counts = [1, 2, 4, 8, 16, 32, 64]
exact, bound = np.transpose([chain_and_bound(T) for T in counts])
entropy = -(pair[pair > 0] * np.log(pair[pair > 0])).sum()  # of the data: no model has less
assert (exact >= entropy - 1e-10).all()
assert (np.diff(exact) < 0).all()
np.testing.assert_allclose([exact[0], bound[0]], 2 * entropy, rtol=1e-5)  # one element has all of it
for row in zip(counts, exact, bound, strict=True):
    print("T = {:>2}: -log p {:.4f} nats, bound {:.4f}".format(*row))
print(f"entropy of x_0: {entropy:.4f}")

# %%
plt.figure(figsize=(6, 3), layout="constrained")
plt.plot(counts, bound, "o-", label="bound")
plt.plot(counts, exact, "o-", label="$-\\log p(x_0)$, exact")
plt.axhline(entropy, color="grey", linestyle="--", label="entropy of the data")
plt.xscale("log", base=2)
plt.xlabel("steps T")
plt.ylabel("nats for both elements")
plt.title(f"a perfect network on two equal elements, uniform noise, K = {K}")
plt.legend()
plt.show()

# %% [markdown]
# With one step the elements are drawn independently, here with 2 log K nats, and the bound is exact, but for
# the little that x_1 knows of x_0. With more steps the negative log likelihood falls towards the entropy; the
# bound lies above it and follows. So a better bound with more steps, which networks show as well, is not
# their merit alone: it is what the factorised step costs that goes away.
#
# From here: docs/library.md has every process, schedule and loss; docs/reverse-step.md derives the two
# beliefs.
