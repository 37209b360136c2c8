"""Says what a step costs on cards that are not at hand, from the program that XLA compiles for them."""

import os
import re
import textwrap
import time
from functools import partial
from typing import NamedTuple

from d3pm_jax.program.compiled import cards, cost, programs
from d3pm_jax.program.parts import build

# JAX takes this part of a GPU's memory when it starts, and a program has to fit into that.
PREALLOCATED = 0.75


class CardCost(NamedTuple):
    """Holds what a step costs on one of several cards."""

    card: cards.Card
    num_cards: int
    cost: cost.Cost
    program: programs.Program
    seconds: float  # that a step takes at least, if all arrays go through the memory of the card
    fallback: str  # of `cards.FALLBACKS`, that it was compiled with; "" of none
    cycles: int  # of a TPU, as its compiler estimates them; 0 of a GPU
    attention: str | None = None  # the form that the network takes, if it chooses one

    @property
    def most_mfu(self) -> float:
        """Returns the share of the peak in bfloat16 that a step can reach at most."""
        return self.cost.flops / self.seconds / self.card.peaks["bf16"]


def measure_on_card(parts: build.Parts, card: cards.Card) -> CardCost:
    """Compiles the step of a run, whose mesh is of described devices, and counts its program."""
    start = time.monotonic()
    compiled = cards.compile_for(card, parts.mesh, partial(cost.trace_step, parts))
    seconds_to_compile = time.monotonic() - start
    return CardCost(
        card,
        parts.mesh.size,
        cost.read_cost(parts, compiled.executable, seconds_to_compile),
        compiled.program,
        compiled.program.seconds(card.bandwidth, card.peaks),
        compiled.fallback,
        count_cycles(compiled.executable.as_text()),
        parts.config.model.attention_form(),
    )


def count_cycles(text: str) -> int:
    """Sums the cycles that the compiler of a TPU estimates for kernels; those of Pallas are left out."""
    return sum(int(cycles) for cycles in re.findall(r'"estimated_cycles":"(\d+)"', text))


def describe_card_cost(measured: CardCost) -> str:
    """Writes what a step costs on described cards, as lines for a terminal."""
    card = measured.card
    program = measured.program
    step = measured.cost
    works = ", ".join(
        f"{work} {cost.format_bytes(moved)}" for work, moved in program.bytes_by_work().items() if moved
    )
    products = program.flops()
    vector = products.pop("vector", 0)
    types = ", ".join(f"{number:.3g} in {kind}" for kind, number in products.most_common())
    collectives = ", ".join(f"{number} {kind}" for kind, number in program.collectives().items())
    lines = [
        f"compiled, not run: {measured.num_cards} x {card.label}; compiled in {step.seconds:.1f} s",
        f"parameters: {step.parameters:,}",
        *([] if measured.attention is None else [f"attention: {measured.attention}"]),
        f"memory of a step: {cost.format_bytes(step.memory)} on each card, "
        f"{cost.format_bytes(step.arguments)} of arguments and {cost.format_bytes(step.added)} that it adds",
        _whether_it_fits(step.memory, card),
        f"work of a step: {step.flops:.4g} FLOPs on each card (products of matrices and",
        "  convolutions, forward and backward; what is computed again counts once);",
        f"  of such products the program does {types or 'none'}, and {vector:.3g} FLOPs beside them",
        f"it moves {cost.format_bytes(program.bytes)} on each card, by {program.launches:,} kernels:",
        *textwrap.wrap(works, 78, initial_indent="  ", subsequent_indent="  "),
        f"collectives: {collectives or 'none'}",
        f"a step takes at least {1000 * measured.seconds:.3g} ms: each kernel takes at least its bytes at",
        f"  {card.bandwidth / 1e12:.3g} TB/s, and its operations at their peak; collectives may take longer,",
        "  and kernels less where arrays stay in the cache of the card",
        f"mfu is at most {measured.most_mfu:.1%}, of {card.peaks['bf16'] / 1e12:.0f} TFLOP/s",
    ]
    if program.loops_of_unknown_length:
        lines.append(f"loops of unknown length: {program.loops_of_unknown_length}, each counted as one round")
    if measured.cycles:
        lines.append(f"its compiler estimates {measured.cycles:,} cycles")
    if measured.fallback:
        lines.append(f"{measured.fallback}: XLA knows no")
        lines.append("  tiles for one of them, which it would try out on a card that is at hand")
    return "\n".join(lines)


def _whether_it_fits(needed: int, card: cards.Card) -> str:
    """Compares the memory of a step with that of a card, and with the part that JAX takes of a GPU's."""
    share = 1.0
    if card.cores is not None:
        share = float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", PREALLOCATED))
    has = f"a card has {cost.format_bytes(card.memory)}"
    if needed > card.memory:
        return f"it does not fit: {cost.format_bytes(needed)} needed, {has}"
    if needed > share * card.memory:
        return (
            f"it fits with XLA_PYTHON_CLIENT_MEM_FRACTION=.95, as JAX takes {share:.0%} of a card: "
            f"{cost.format_bytes(needed)} needed,\n  {has}"
        )
    return f"it fits: {cost.format_bytes(needed)} needed, {has}"
