"""Judges samplers, this library's and other people's, by the law that they draw from.

record = judge.judge("maskgit", oracle, judge.Protocol(calls=(4, 16)))
record["verdict"]
"""

from d3pm_jax.extras import require

require(__name__, "PIL", "matplotlib", "orbax")

from d3pm_jax.judge.judging import Protocol, judge
from d3pm_jax.judge.pages import describe, save_picture, write_page
from d3pm_jax.judge.subjects import Subject, function_subject, read_subject, sampler_subject
from d3pm_jax.judge.targets import read_target

__all__ = [
    "Protocol",
    "Subject",
    "describe",
    "function_subject",
    "judge",
    "read_subject",
    "read_target",
    "sampler_subject",
    "save_picture",
    "write_page",
]
