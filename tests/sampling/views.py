"""Makes views of rows without a loop around them, of logits that are given."""

from collections.abc import Callable, Mapping

from jaxtyping import Array

from d3pm_jax.beliefs import Belief
from d3pm_jax.processes import Process
from d3pm_jax.sampling import Answer, Row, View


def make_view(
    process: Process,
    logits: Array,
    belief: Belief,
    x: Array,
    t: Array,
    s: Array,
    noise: Callable[[int | Array], Array],
    memory: Mapping[str, Array],
) -> View:
    """Makes a view in which every place may change; whatever is asked, the answer has these logits."""

    def ask_each(x: Array, t: Array, time: Array | None = None) -> list[Answer]:
        return [Answer(process, logits, belief, x, t, logits)]

    return View(
        process=process,
        x=x,
        t=t,
        s=s,
        row=Row(1, t[0], s[0]),
        rows=1,
        memory=dict(memory),
        noise=noise,
        ask_each=ask_each,
        see=lambda answer: None,
        hold=lambda drawn: drawn,
        may_change=None,
        unknown=None,
    )
