"""Chains on the page about runs."""

from types import SimpleNamespace

import numpy as np

import d3pm_jax
from d3pm_jax import kinds
from d3pm_jax.data import Description
from d3pm_jax.parts import diffusion
from d3pm_jax.report import samples
from tests.report.records import Known, KnownParts, record


def test_chains_tell_the_t_of_the_whole_process(tmp_path):
    process = diffusion.with_steps(d3pm_jax.uniform(d3pm_jax.cosine(10), 4), [2, 3, 10])

    def sample(key, n, batch_size, record, chains):
        assert (record, chains) == ([0, 1, 2, 3], 16)
        return np.zeros((n, 2), np.int32), np.zeros((4, 16, 2), np.int32)

    method = SimpleNamespace(num_steps=process.T, state_times=lambda: np.asarray(process.time))
    description = Description((2,), 4)
    run = Known(
        step=7,
        workdir=tmp_path,
        sample=sample,
        parts=KnownParts(
            method=method,
            process=process,
            categories=4,
            description=description,
            kind=kinds.make_kind(description),
        ),
    )
    drawn = samples.draw_run(record(run=run))
    assert (drawn.chains.times, drawn.chains.strip) == ([0, 2, 3, 10], [0, 2, 3, 10])
