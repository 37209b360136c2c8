"""Processes at odd points: two categories, a reset half-way, probability 0, masks on top."""

import numpy as np

import d3pm_jax as d3pm

T = 12
PI = np.array([0.3, 0.0, 0.2, 0.1, 0.1, 0.3, 0.0])

PROCESSES = {
    "uniform": lambda: d3pm.uniform(d3pm.cosine(T), 7),
    "two": lambda: d3pm.uniform(np.append(np.full(T - 1, 0.2), 1.0), 2),
    "reset": lambda: d3pm.uniform(np.where(np.arange(T) == 5, 1.0, 0.1), 7),  # alpha_bar = 0 from t = 6 on
    "absorbing": lambda: d3pm.absorbing(d3pm.reciprocal(T), 7, 3),
    "marginal": lambda: d3pm.marginal(d3pm.linear(T, 1e-6, 1.0), PI),
    "masked": lambda: d3pm.masked(d3pm.marginal(d3pm.linear(T, 0.1, 1.0), PI[:6]), 0.5 * d3pm.reciprocal(T)),
    "masked to the end": lambda: d3pm.masked(d3pm.marginal(d3pm.cosine(T), PI[:6]), d3pm.reciprocal(T)),
    "masked gaussian": lambda: d3pm.masked(d3pm.gaussian(d3pm.linear(T, 0.2, 1.0), 6), d3pm.reciprocal(T)),
    "gaussian": lambda: d3pm.gaussian(d3pm.linear(T, 0.2, 1.0), 7),
    "interpolating": lambda: d3pm.interpolating(T, 7, 3, 0.3, 0.7),
}
