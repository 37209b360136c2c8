"""Wraps a process and its reverse step as an object with the methods that schedulers of diffusers have."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import d3pm_jax as d3pm
from d3pm_jax.sampling import even_grid


class Step(NamedTuple):
    prev_sample: jax.Array


class Scheduler:
    def __init__(self, process, belief="d3pm"):
        self.process = process
        self.belief = belief
        self.set_timesteps(process.T)

    def set_timesteps(self, num_inference_steps):
        """Takes so many of the steps of the process."""
        grid = even_grid(self.process.T, num_inference_steps)
        self.short = d3pm.respace(self.process, grid)
        self.timesteps = np.asarray(self.short.time)[:0:-1]  # T first; a step ends at the next one, or at 0

    def draw_prior(self, u):
        """Draws x_T from uniforms [B, *S]."""
        return self.process.draw_prior(u)

    def add_noise(self, original_samples, u, timesteps):
        """Draws x_t from x_0 and uniforms [B, *S] in [0, 1), where others take Gaussian noise."""
        return d3pm.q_sample(self.process, original_samples, timesteps, u)

    def scale_model_input(self, sample, timestep=None):
        return sample

    def step(self, model_output, timestep, sample, u):
        """Draws the sample one step nearer to the data, from logits of x_0 [B, *S, K]."""
        row = int(np.searchsorted(np.asarray(self.short.time), timestep))
        t = jnp.full(len(sample), row)
        return Step(d3pm.p_sample(self.short, model_output, sample, t, u, self.belief))


def main():
    scheduler = Scheduler(d3pm.uniform(d3pm.cosine(100), K=5))
    scheduler.set_timesteps(10)
    noise = jax.random.uniform(jax.random.key(0), (11, 4, 6))
    sample = scheduler.draw_prior(noise[0])
    for i, t in enumerate(scheduler.timesteps):
        logits = jnp.zeros((*sample.shape, 5)).at[..., 3].set(4.0)  # a network that believes in category 3
        sample = scheduler.step(logits, t, sample, noise[i + 1]).prev_sample
    print(sample)
    return scheduler, noise, sample


if __name__ == "__main__":
    main()
