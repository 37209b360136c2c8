"""Computes row functions through XLA, and as kernels in interpret mode: both take what `map_rows` does."""

from functools import partial

from d3pm_jax.numerics import rows


def _apply(form, f, settings, logits, numbers, tables=(), K=None):
    call, leaves = rows._describe(f, settings, logits, numbers, tables, K)
    return rows._unflatten_outputs(call, leaves, form(call, *leaves))


through_xla = partial(_apply, rows._by_xla)
interpret = partial(_apply, partial(rows._by_pallas, interpret=True))
