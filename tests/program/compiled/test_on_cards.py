"""What `d3pm train --dry-run --on CARD` refuses, and what it says of cards that are not at hand."""

import dataclasses
import re

import jax
import pytest
from jax.extend import backend

from d3pm_jax import placing
from d3pm_jax.config import Absorbing, Importance, Reciprocal
from d3pm_jax.errors import UserError
from d3pm_jax.program.compiled import cards, cost, on_cards, programs
from d3pm_jax.program.loop import loop
from d3pm_jax.program.machine.devices import make_mesh
from d3pm_jax.program.parts import build
from tests import tiny
from tests.cli.commands import CONFIG, error
from tests.program.compiled.test_programs import CONDITIONAL

REFUSALS = {
    "h10": "card 'h10' is not known: take one of a100, h100, h200, b200, v5e, as in h100 or h100:8",
    "h100:0": "'h100:0' is 0 cards: pass at least 1, as in h100:8",
    "h100:": "'h100:' is no cards: pass at least 1, as in h100:8",
    "h100:two": "'h100:two' is two cards: pass at least 1, as in h100:8",
    "h100:8": "h100 needs jax_cuda12_plugin, in an environment of its own: pip install -e '.[compiled,train]",
    "v5e:4": "v5e needs libtpu, in an environment of its own: pip install -e '.[tpu,train]'",
}


def test_refusals(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(cards, "find_spec", lambda name: None)
    for words, expected in REFUSALS.items():
        with pytest.raises(UserError, match=re.escape(expected)):
            cards.describe_devices(words)
    command = ["train", CONFIG, "--data.dir", tmp_path, "--on", "h10"]
    assert "--on h10 compiles for cards that are not at hand: pass --dry-run too" in error(capsys, *command)
    assert REFUSALS["h10"] in error(capsys, *command, "--dry-run")


def test_a_batch_that_the_cards_do_not_divide(small_network):
    config = tiny.get_config()
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=5))
    mesh = make_mesh(1, jax.devices())
    with pytest.raises(
        UserError, match=r"batch_size = 5 does not divide over 2 devices: set it to a multiple of 2"
    ):
        loop.build_described_run(config, mesh)


@pytest.mark.parametrize("process", [tiny.get_config().process, Absorbing(18, 10, Reciprocal(), 17)])
def test_parts_on_described_devices_are_shapes(process, small_network, monkeypatch):
    # A described device needs the plugin: those of this machine stand for it, and nothing may be put on them.
    monkeypatch.setattr(placing, "is_described", lambda mesh: True)
    monkeypatch.setattr(build, "is_described", lambda mesh: True)
    config = dataclasses.replace(tiny.get_config(), process=process, timesteps=Importance())
    parts = loop.build_described_run(config, make_mesh(1, jax.devices()))
    placed = (parts.state, parts.recipe.process, parts.key)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(placed))
    assert parts.state.history.counts.shape == (parts.recipe.process.T,)


def test_products_without_tiles(monkeypatch):
    """XLA is asked again with each fallback until one compiles; other errors are the caller's."""
    device = jax.devices()[0]
    mesh = jax.sharding.Mesh([device], ("devices",))
    monkeypatch.setattr(cards, "find_toolkit", lambda card: "folder")

    class Lowered:
        def __init__(self, *errors):
            self.errors = list(errors)
            self.tried = []
            self.jaxpr = jax.make_jaxpr(lambda: 1)()

        def lower(self):
            assert backend.get_default_device() is device
            return self

        def compile(self, compiler_options):
            self.tried.append(set(compiler_options))
            if self.errors:
                raise jax.errors.JaxRuntimeError(self.errors.pop(0))
            return self

        def as_text(self):
            return CONDITIONAL

    backend_default = backend.get_default_device
    unknown, unsupported = "no tile sizes for dot", "No supported config for fusion"
    _, first, second = cards.FALLBACKS
    for errors, fallback in (((), ""), ((unsupported,), first), ((unknown, unsupported), second)):
        lowered = Lowered(*errors)
        compiled = cards.compile_for(cards.CARDS["h100"], mesh, lambda lowered=lowered: lowered)
        assert compiled == (lowered, programs.count_program(CONDITIONAL), fallback)
        assert lowered.tried[-1] >= set(cards.FALLBACKS[fallback])
        assert len(lowered.tried) == len(errors) + 1
    for errors in (("out of memory",), (unknown, "out of memory"), (unknown, unknown, unsupported)):
        with pytest.raises(jax.errors.JaxRuntimeError, match=errors[-1]):
            cards.compile_for(cards.CARDS["h100"], mesh, lambda errors=errors: Lowered(*errors))
    assert backend.get_default_device is backend_default


def make_cost(memory):
    flops = {"bf16": 10**12, "vector": 10**6}
    kernel = programs.Kernel("k", "convolutions", runs=2, bytes=3 * 10**9, flops=flops, origin="")
    program = programs.Program((kernel,), 0)
    card = cards.CARDS["h100"]
    step = cost.Cost(5, 10**12, memory - 10**9, 10**9, 3.0)
    seconds = program.seconds(card.bandwidth, card.peaks)
    return on_cards.CardCost(card, 8, step, program, seconds, fallback="", cycles=0)


def test_what_is_said():
    lines = on_cards.describe_card_cost(make_cost(70 * 10**9)).splitlines()
    assert lines[0] == "compiled, not run: 8 x NVIDIA H100 80GB HBM3; compiled in 3.0 s"
    assert lines[3].startswith(
        "it fits with XLA_PYTHON_CLIENT_MEM_FRACTION=.95, as JAX takes 75% of a card: 70.00 GB"
    )
    assert "  of such products the program does 2e+12 in bf16, and 2e+06 FLOPs beside them" in lines
    assert "it moves 6.00 GB on each card, by 2 kernels:" in lines
    assert "collectives: none" in lines
    milliseconds = 2 * 1000 * 10**12 / 989e12
    assert f"a step takes at least {milliseconds:.3g} ms" in "\n".join(lines)
    assert "mfu is at most 50.0%, of 989 TFLOP/s" in lines
    assert all(len(line) <= 110 for line in lines)
    assert "it fits: 30.00 GB needed" in on_cards.describe_card_cost(make_cost(30 * 10**9))
    assert "it does not fit: 90.00 GB needed" in on_cards.describe_card_cost(make_cost(90 * 10**9))
    odd = make_cost(10**10)._replace(fallback=[*cards.FALLBACKS][-1], cycles=1234)
    odd = odd._replace(program=programs.Program(odd.program.kernels, 1))
    printed = on_cards.describe_card_cost(odd)
    assert "loops of unknown length: 1, each counted as one round" in printed
    assert "its compiler estimates 1,234 cycles" in printed
    assert "products are left to cuBLAS" in printed
