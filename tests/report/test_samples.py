"""Chains on the page about runs."""

import dataclasses
from types import SimpleNamespace

import numpy as np

import d3pm_jax
from d3pm_jax import config, kinds
from d3pm_jax.data import Description
from d3pm_jax.program.measure.samples import Drawn
from d3pm_jax.program.parts import diffusion
from d3pm_jax.report import samples
from d3pm_jax.sampling import Sampler, make_plan, named
from tests import tiny
from tests.report.reading import Page
from tests.report.records import RUN, Known, KnownParts, record


def make_run(tmp_path, sampler, recorded_times):
    """A run with three of ten steps, which is asked for chains at these times."""
    process = diffusion.with_steps(d3pm_jax.uniform(d3pm_jax.cosine(10), 4), [2, 3, 10])

    def sample(key, n, draw, batch_size, chains):
        assert (draw.record, chains) == (recorded_times, 16)
        states = np.zeros((len(draw.record), 16, 2), np.int32)
        return Drawn(np.zeros((n, 2), np.int32), states, np.zeros(n, np.int32), 0)

    def settle(draw, settled):
        sampler = settled.sampler or Sampler()
        return dataclasses.replace(
            settled, sampler=sampler, plan=make_plan(sampler, process, settled.shape[1:])
        )

    recipe = SimpleNamespace(
        dropping=None,
        num_steps=process.T,
        times=np.asarray(process.time),
        draw=SimpleNamespace(settle=settle),
        process=process,
        classes=None,
        categories=4,
    )
    description = Description((2,), 4)
    return Known(
        step=7,
        workdir=tmp_path,
        sample=sample,
        parts=KnownParts(
            config=dataclasses.replace(tiny.get_config(), sampler=sampler),
            recipe=recipe,
            description=description,
            kind=kinds.make_kind(description),
            mesh=tiny.one_device_mesh(),
        ),
    )


def test_chains_tell_the_t_of_the_whole_process(tmp_path):
    run = make_run(tmp_path, Sampler(), [0, 1, 2, 3])
    drawn = samples.draw_run(record(run=run))
    assert (drawn.chains.reverse.times, drawn.chains.strip) == ([0, 2, 3, 10], [0, 2, 3, 10])


def test_a_sampler_whose_rows_are_no_steps_has_samples_and_no_chains(tmp_path):
    reported = record(run=make_run(tmp_path, named.repaint(passes=2), []))
    drawn = samples.draw_run(reported)
    assert (drawn.chains.reverse.times, drawn.chains.strip) == ([], [])
    assert samples.show_chains(reported, drawn) is None


def test_what_a_run_shall_not_keep_no_command_gives():
    own = dataclasses.replace(RUN.config, data=config.Table("people.csv", keep_examples=False))
    page = Page(samples.show_samples(record(run=Known(**vars(RUN) | {"config": own})), None))
    assert page.words == [
        "Samples need conditions, and this run keeps no examples (data.keep_examples = False)."
    ]
