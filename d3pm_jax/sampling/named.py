"""Names the samplers of papers, each a line of slots: `sampling.named.SAMPLERS` lists them all."""

import dataclasses
import difflib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from d3pm_jax.errors import one_line
from d3pm_jax.sampling.correctors import Corrected, Gibbs, RateCorrector
from d3pm_jax.sampling.places import (
    Cosine,
    DrawnProbability,
    EntropyBound,
    Factor,
    FirstHitting,
    LeastEntropy,
    RandomOrder,
    Reveal,
    Threshold,
)
from d3pm_jax.sampling.sampler import Sampler
from d3pm_jax.sampling.shaping import Shaping
from d3pm_jax.sampling.transitions import (
    Cap,
    Euler,
    Keep,
    LeastConfident,
    Mixture,
    Poisson,
    Remask,
    RemaskLoop,
    Rescale,
    Stratified,
)
from d3pm_jax.schedules.continuous import Schedule


def ancestral() -> Sampler:
    """Draws x_{t-1} from p(x_{t-1} | x_t): every process (D3PM, 2107.03006)."""
    return Sampler()


def ddim(c: float = 1.0) -> Sampler:
    """Keeps x_t as often as the marginals allow: uniform, absorbing, marginal (DDIM, 2010.02502)."""
    return Sampler(Keep(c))


def psi(kappa: float = 0.95) -> Sampler:
    """Follows Bayes' rule with probability kappa, else noises x_0 afresh: every process (Psi, 2602.21185)."""
    return Sampler(Mixture(kappa))


def remdm_cap(eta: float = 0.04) -> Sampler:
    """Masks again with probability eta at most: absorbing (ReMDM, 2503.00307)."""
    return Sampler(Remask(Cap(eta)))


def remdm_rescale(eta: float = 0.05) -> Sampler:
    """Masks again with eta times the largest probability: absorbing (ReMDM, 2503.00307)."""
    return Sampler(Remask(Rescale(eta)))


def remdm_confidence() -> Sampler:
    """Masks again where it was least sure when unmasking: absorbing (ReMDM, 2503.00307)."""
    return Sampler(Remask(LeastConfident()))


def remdm_loop(rows: int = 100, alpha: float = 0.9) -> Sampler:
    """Holds a level for half of the rows while masking again: absorbing (ReMDM, 2503.00307)."""
    return Sampler(RemaskLoop(rows=rows, alpha=alpha))


def first_hitting(schedule: Schedule | None = None) -> Sampler:
    """Reveals one random place a call, at a time drawn for it: absorbing (2409.02908)."""
    return Sampler(FirstHitting(schedule=schedule))


def random_order() -> Sampler:
    """Reveals one random place a call: absorbing (any-order ARDM, 2110.02037)."""
    return Sampler(Reveal(RandomOrder()))


def least_entropy() -> Sampler:
    """Reveals the place of least entropy a call: absorbing (Dream, 2508.15487)."""
    return Sampler(Reveal(LeastEntropy()))


def maskgit(rows: int = 12, choice_temperature: float = 4.5) -> Sampler:
    """Reveals what was drawn most surely, by a cosine over the rows: absorbing (MaskGIT, 2202.04200)."""
    return Sampler(Reveal(DrawnProbability(choice_temperature), Cosine(rows)))


def fast_dllm_threshold(threshold: float = 0.9) -> Sampler:
    """Reveals what was drawn with at least this probability: absorbing (Fast-dLLM, 2505.22618)."""
    return Sampler(Reveal(DrawnProbability(), Threshold(threshold)))


def fast_dllm_factor(factor: float = 1.0) -> Sampler:
    """Reveals the most places n with (n + 1) (1 - p_n) below a factor: absorbing (Fast-dLLM, 2505.22618)."""
    return Sampler(Reveal(DrawnProbability(), Factor(factor)))


def entropy_bound(bound: float = 0.1) -> Sampler:
    """Reveals the places of least entropy up to a bound: absorbing (EB-Sampler, 2505.24857)."""
    return Sampler(Reveal(LeastEntropy(), EntropyBound(bound)))


def blocks(block: int = 1) -> Sampler:
    """Draws blocks from left to right, each by ancestral sampling: absorbing (BD3-LM, 2503.09573)."""
    return Sampler(block=block)


def tau_leaping() -> Sampler:
    """Leaps where rates have one event: uniform, absorbing, marginal, masked (tau-leaping, 2205.14987)."""
    return Sampler(Poisson())


def euler() -> Sampler:
    """Takes Euler steps along reverse rates: uniform, absorbing, marginal, masked (SEDD, 2310.16834)."""
    return Sampler(Euler())


def predictor_corrector(moves: int = 1, h: float = 0.1) -> Sampler:
    """Leaps along rates, then moves at the same level: uniform, absorbing, marginal (tauLDR, 2205.14987)."""
    return Sampler(Corrected(RateCorrector(moves, h), Poisson()))


def stratified() -> Sampler:
    """Moves when the summed hazard passes a whole number: every process (2601.02799)."""
    return Sampler(Stratified())


def gibbs(moves: int = 1) -> Sampler:
    """Draws single places anew at each level: every process of elements each on its own (2605.22765)."""
    return Sampler(Corrected(Gibbs(moves)))


def repaint(passes: int = 10, noises_known: bool = False) -> Sampler:
    """Repeats each step, with noising back up in between: every process (RePaint, 2201.09865)."""
    return Sampler(passes=passes, noises_known=noises_known)


SAMPLERS: dict[str, Callable[..., Sampler]] = {
    f.__name__: f
    for f in (
        ancestral,
        ddim,
        psi,
        remdm_cap,
        remdm_rescale,
        remdm_confidence,
        remdm_loop,
        first_hitting,
        random_order,
        least_entropy,
        maskgit,
        fast_dllm_threshold,
        fast_dllm_factor,
        entropy_bound,
        blocks,
        tau_leaping,
        euler,
        predictor_corrector,
        stratified,
        gibbs,
        repaint,
    )
}


Number = int | float

# What every sampler may have besides its own fields: those of `Shaping` that are numbers.
SHAPING_FIELDS = {"temperature": float, "top_k": int, "top_p": float, "top_p_below": float}
# "What it does: which processes (paper)."
DOCSTRING = re.compile(r"(?P<action>.*): (?P<processes>[^:]*) \((?P<paper>[^()]*)\)\.")


def choose_sampler(name: str, fields: Mapping[str, str | Number] | None = None) -> Sampler:
    """Returns the sampler of a name.

        choose_sampler("maskgit", {"rows": 8, "temperature": 0.9})

    Args:
        name: one of `SAMPLERS`.
        fields: numbers, or words for them, in place of the defaults: the sampler's own, or of every sampler
            `SHAPING_FIELDS`. A name may have hyphens for its underscores.

    Raises:
        ValueError: there is no sampler of this name, it has no such field, or a value cannot be used.
    """
    changed = parse_fields(name, fields or {})
    shaping: dict[str, Any] = {field: value for field, value in changed.items() if field in SHAPING_FIELDS}
    slots = {field: value for field, value in changed.items() if field not in SHAPING_FIELDS}
    sampler = SAMPLERS[name](**slots)
    return dataclasses.replace(sampler, shaping=Shaping(**shaping))


def parse_fields(name: str, fields: Mapping[str, str | Number]) -> dict[str, Number]:
    """Returns the fields of a named sampler that are not at their defaults, as numbers.

    Args:
        name: one of `SAMPLERS`.
        fields: as for `choose_sampler`.

    Raises:
        ValueError: as `choose_sampler`, but for values that only the slots know to be out of range.
    """
    if name not in SAMPLERS:
        near = difflib.get_close_matches(name.replace("-", "_")[:100], SAMPLERS, cutoff=0.5)
        question = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(
            f"sampler = {one_line(repr(name), 80)}: there is none of this name; {question}"
            f"`d3pm sample --sampler help` lists all"
        )
    defaults = default_fields(name)
    changed = {}
    for written_name, value in fields.items():
        field = written_name.replace("-", "_")
        if field not in defaults and field not in SHAPING_FIELDS:
            choices = ", ".join([*defaults, *SHAPING_FIELDS])
            raise ValueError(
                f"sampler.{one_line(written_name, 80)}: {name} has no such field; it has {choices}"
            )
        number = _parse_number(name, field, value, SHAPING_FIELDS.get(field) or type(defaults[field]))
        if number != defaults.get(field, getattr(Shaping(), field, None)):
            changed[field] = number
    return changed


def _parse_number(name: str, field: str, value: str | Number, number_type: type) -> Number:
    """Returns the number that a value stands for.

    Raises:
        ValueError: it stands for none, or the field takes none.
    """
    if number_type is bool:
        word = str(value).lower()
        if word not in ("true", "false"):
            raise ValueError(f"sampler.{field} = {one_line(repr(value), 80)}: it must be true or false")
        return word == "true"
    if number_type not in (int, float):
        raise ValueError(
            f"sampler.{field}: it is not a number, so set it in Python, as sampling.named.{name}({field}=..)"
        )
    expected = "a whole number" if number_type is int else "a number"
    try:
        number = number_type(value)
    except (TypeError, ValueError, OverflowError):
        number = None
    # As a word "2.5" is no int, but as a float it would be cut down to one.
    is_cut = not isinstance(value, str) and number != value
    if number is None or is_cut or isinstance(value, bool):
        raise ValueError(f"sampler.{field} = {one_line(repr(value), 80)}: it must be {expected}")
    return number


def default_fields(name: str) -> dict[str, Any]:
    """Returns the fields of a named sampler by name, each with its default."""
    return {field.name: field.default for field in inspect.signature(SAMPLERS[name]).parameters.values()}


class Entry(NamedTuple):
    """Holds what the table says of a sampler."""

    name: str
    action: str  # what it does
    processes: str  # that it is for
    paper: str
    fields: dict[str, Any]  # its own, each with its default


def list_samplers() -> list[Entry]:
    """Lists all samplers, from their docstrings."""
    entries = []
    for name, make in SAMPLERS.items():
        parts = DOCSTRING.fullmatch(inspect.getdoc(make) or "")
        if parts is None:
            raise ValueError(f"the docstring of {name} must be 'What it does: which processes (paper).'")
        entries.append(Entry(name, parts["action"], parts["processes"], parts["paper"], default_fields(name)))
    return entries


def describe_samplers() -> str:
    """Returns the table of all samplers: name, what it does, for which processes, paper, and fields."""
    lines = []
    for entry in list_samplers():
        lines.append(f"{entry.name:<22}{entry.action}")
        lines.append(f"{'':22}for: {entry.processes}; {entry.paper}")
        if entry.fields:
            fields = ", ".join(f"{field} = {default}" for field, default in entry.fields.items())
            lines.append(f"{'':22}fields: {fields}")
    shaping = ", ".join(f"{field} = {getattr(Shaping(), field)}" for field in SHAPING_FIELDS)
    lines.append(f"{'of every sampler':<22}fields: {shaping}")
    return "\n".join(lines)


def describe_sampler(sampler: Sampler) -> str:
    """Names the slots of a sampler that are not at their defaults, with all of their numbers."""
    slots = []
    for slot in dataclasses.fields(Sampler):
        value = getattr(sampler, slot.name)
        if value != slot.default:
            slots.append(f"{slot.name} = {_describe_slot(value)}")
    return ", ".join(slots) or "ancestral"


def _describe_slot(value: Any) -> str:
    if dataclasses.is_dataclass(value):
        fields = [f"{f.name}={_describe_slot(getattr(value, f.name))}" for f in dataclasses.fields(value)]
        return f"{type(value).__name__}({', '.join(fields)})"
    # The text of a function has its address in memory, which is another one each time.
    return getattr(value, "__qualname__", repr(value))
