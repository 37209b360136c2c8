"""Processes of 1000 steps as other programs write them, in NumPy and float64, and the same ones here."""

import jax.numpy as jnp
import numpy as np
from scipy.special import log_softmax, logsumexp, softmax

import d3pm_jax as d3pm
from tests.compat.inputs import i32

T = 1000
D = 8
COSINE = np.cos((np.arange(T + 1) / T + 0.008) / 1.008 * np.pi / 2)
BETAS = {
    "cosine": np.minimum(1 - COSINE[1:] / COSINE[:-1], 0.999),
    "cosine_squared": 1 - np.sqrt(np.maximum(COSINE[1:] ** 2 / COSINE[:-1] ** 2, 0.001)),
    "linear": np.linspace(1e-4, 0.02, T),
    "reciprocal": 1 / np.arange(T, 0, -1.0),
}


def matrix(kind: str, beta: float, K: int) -> np.ndarray:
    """One step, [from, to]; the Gaussian has 255 in it whatever K is."""
    n = np.subtract.outer(np.arange(K), np.arange(K))
    if kind == "uniform":
        return (1 - beta) * np.eye(K) + beta / K
    if kind == "absorbing":
        return (1 - beta) * np.eye(K) + beta * (np.arange(K) == K - 1)
    if kind == "band":
        near = abs(n) <= 2
        return ((1 - beta) * np.eye(K) + beta * near / near.sum(0)).T
    weights = np.exp(-((np.arange(1 - K, K) * 255 / (K - 1) * 2 / (K - 1)) ** 2) / beta)
    Q = np.where(n == 0, 0.0, weights[K - 1 + n] / weights.sum())
    return Q + np.diag(1 - Q.sum(1))


class Chain:
    """A process, and elements on their way: x0 and x_t [T, D], row t - 1 at step t, and logits [T, D, K].

    x_t is drawn, or with `anything` half of it is any category: eps makes all of them possible.
    """

    def __init__(self, kind: str, schedule: str, K: int, anything: bool = False):
        rng = np.random.default_rng(0)
        self.kind = kind
        self.beta = BETAS[schedule]
        self.K = K
        self.t = np.arange(1, T + 1)
        self.Q = np.stack([matrix(kind, b, K) for b in self.beta])
        self.Qbar = np.empty((T + 1, K, K))
        self.Qbar[0] = np.eye(K)
        for t in range(T):
            self.Qbar[t + 1] = self.Qbar[t] @ self.Q[t]
        self.x0 = rng.integers(0, K - 1, (T, D))
        cdf = self.Qbar[self.t[:, None], self.x0].cumsum(-1)
        self.xt = (rng.random((T, D, 1)) > cdf / cdf[..., -1:]).sum(-1)
        if anything:
            self.xt[:, ::2] = rng.integers(0, K, (T, D // 2))
        width = np.resize([1, 3, 10], (T, 1, 1))
        self.logits = (width * rng.normal(size=(T, D, K))).astype(np.float32).astype(np.float64)
        self.onehot = np.eye(K)[self.x0]
        self.largest = abs(self.logits).max(-1)

    def process(self):
        make = {
            "uniform": lambda: d3pm.uniform(self.beta, self.K),
            "absorbing": lambda: d3pm.absorbing(self.beta, self.K, self.K - 1),
            "band": lambda: d3pm.random_walk(self.beta, matrix("band", 1.0, self.K)),
            "gaussian": lambda: d3pm.gaussian(self.beta * ((self.K - 1) / 255) ** 2, self.K),
        }
        return make[self.kind]()

    def arrays(self):
        """logits, x0, xt, t as the calls take them."""
        return jnp.asarray(self.logits), i32(self.x0), i32(self.xt), i32(self.t)

    def factors(self, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The column of Q[t] for x_t, and p @ Qbar[t - 1], for every element."""
        back = self.Q[self.t[:, None] - 1, :, self.xt]
        return back, p @ self.Qbar[:-1]

    def with_eps(self, p: np.ndarray, first: np.ndarray) -> np.ndarray:
        """log(fact1 + 1e-6) + log(fact2 + 1e-6), and what the images code has at its t = 0."""
        back, row = self.factors(p)
        return np.where(self.t[:, None, None] == 1, first, np.log(back + 1e-6) + np.log(row + 1e-6))

    def cross_entropy(self) -> np.ndarray:
        return -np.take_along_axis(log_softmax(self.logits, -1), self.x0[..., None], -1)[..., 0]

    def exact_kl(self) -> np.ndarray:
        """KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) by Bayes' rule, without eps, at every t."""
        with np.errstate(divide="ignore"):
            back, row = np.log(self.factors(self.onehot))
            pushed = np.log(self.factors(softmax(self.logits, -1))[1])
        return kl(*(z - logsumexp(z, -1, keepdims=True) for z in (back + row, back + pushed)))


def kl(log_q: np.ndarray, log_p: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.where(log_q > -np.inf, np.exp(log_q) * (log_q - log_p), 0).sum(-1)
