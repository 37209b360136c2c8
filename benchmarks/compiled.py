"""What an accelerator would run, read from programs that XLA compiles for cards that are only described.

    python benchmarks/compiled.py loss uniform                     a loss with its gradient
    python benchmarks/compiled.py loss masked --belief denoiser    the same of another belief
    python benchmarks/compiled.py draw compared                    draws; what ours stands beside
    python benchmarks/compiled.py chain absorbing                  rows of samplers, from logits on
    python benchmarks/compiled.py step cifar10_uniform --bf16      the training step of a config
    python benchmarks/compiled.py step cifar10_uniform --on h100:8 --fsdp 8
    python benchmarks/compiled.py all

It needs `pip install -e '.[compiled,train]'` in an environment of its own. Nothing is run, and no time is
measured: a row says how many kernels a program is, what they move, in bytes and in passes (those of the
logits), the temporaries, and the time that this takes at least, for each kernel the larger of its bytes at
the bandwidth and its operations at their peak, where no array stays in the cache of the card. K = 256, 32
examples of 3,072 elements, float32.
"""

import argparse
import dataclasses
import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

# Programs are compiled for cards; what builds them computes on the CPU.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import jax.numpy as jnp
import kernels as forms
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from measuring import line

import d3pm_jax as d3pm
from d3pm_jax import losses, sampling
from d3pm_jax.config import LogisticHead, Transformer
from d3pm_jax.errors import UserError, one_line
from d3pm_jax.losses import fused_logistic
from d3pm_jax.program.compiled import cards, on_cards, programs
from d3pm_jax.program.loop import loop
from d3pm_jax.program.machine.devices import make_mesh
from d3pm_jax.projection import Projection
from d3pm_jax.sampling import named
from d3pm_jax.sampling.run import prepare

ROOT = Path(__file__).resolve().parents[1]
K = 256
SHAPE = (32, 3072)
T = 1000
BELIEFS = ("d3pm", "leave_one_out", "denoiser")
FAMILIES: dict[str, Callable[[int], Any]] = {
    "uniform": lambda K: d3pm.uniform(d3pm.cosine(T), K),
    "absorbing": lambda K: d3pm.absorbing(d3pm.reciprocal(T), K, K - 1),
    "marginal": lambda K: d3pm.marginal(d3pm.cosine(T), np.arange(1, K + 1) / np.arange(1, K + 1).sum()),
    "masked": lambda K: d3pm.masked(d3pm.uniform(d3pm.cosine(T), K - 1), d3pm.reciprocal(T)),
    "gaussian": lambda K: d3pm.gaussian(d3pm.linear(T), K),
}
# For the PTX of kernels in the folder `xla_dump_to`, which XLA of jax 0.12 writes only if it is asked for.
DUMP = {"xla_dump_emitter_re": "ptx"}
# A text network of width 768, which no config has.
TEXT = "text768"
HEAD = (
    "program",
    "kernels",
    "MB moved",
    "passes",
    "temporaries, MB",
    "TFLOP in products",
    "at least, ms",
    "registers; spills",
    "by class of work; collectives",
)


class Form(NamedTuple):
    """Describes a program: a function, and its arguments, arrays or their shapes."""

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "words", nargs="+", metavar="WHAT", help="rows, and families or configs to take them of"
    )
    parser.add_argument("--on", default="h100", metavar="CARD[:N]", help="a card, and how many (h100)")
    parser.add_argument("--belief", choices=BELIEFS, help="of losses and reverse steps (all; d3pm)")
    parser.add_argument("--bf16", action="store_true", help="logits, or the network of a step, in bfloat16")
    parser.add_argument("--fsdp", type=int, default=1, help="devices that hold the parts of a state (1)")
    parser.add_argument("--axis", type=int, default=0, help="of the logits, which several cards share (0)")
    parser.add_argument("--kernels", action="store_true", help="list the kernels of each program too")
    args = parser.parse_args()

    rows = [word for word in args.words if word in ROWS]
    names = [word for word in args.words if word not in ROWS and word != "all"]
    configs = [path.stem for path in sorted((ROOT / "configs").glob("*.py"))]
    if unknown := set(names) - {*FAMILIES, *configs, TEXT}:
        parser.error(
            f"unknown word {unknown.pop()}: choose rows ({', '.join(ROWS)}, all), families "
            f"({', '.join(FAMILIES)}) and configs ({', '.join([*configs, TEXT])})"
        )
    if "all" in args.words or not rows:
        rows = list(ROWS)
    # A program from a cache is not compiled again, and no PTX of it is written.
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        card, devices = cards.describe_devices(args.on)
    except UserError as error:
        sys.exit(str(error))
    print(f"compiled, not run: {len(devices)} x {card.label}, jax {jax.__version__}\n")
    print(line(HEAD))
    print(line(["---"] * len(HEAD)), flush=True)
    for row in rows:
        ROWS[row](args, names, card, devices)


def choose_families(names: list[str]) -> list[str]:
    """Returns the families among names, or all of them where there is none."""
    return [name for name in names if name in FAMILIES] or list(FAMILIES)


def loss(args: argparse.Namespace, names: list[str], card: cards.Card, devices: list[Any]) -> None:
    """The hybrid loss of each element, with cotangents of each, and the gradient by the logits."""
    for family in choose_families(names):
        process = FAMILIES[family](K)
        beliefs = BELIEFS if family == "masked" else BELIEFS[:1]
        for belief in [args.belief] if args.belief else beliefs:
            function = functools.partial(loss_with_gradient, belief=belief)
            form = Form(f"loss, {family}, {belief}", function, loss_arguments(process, args, K, SHAPE))
            report(form, args, card, devices)


def draw(args: argparse.Namespace, names: list[str], card: cards.Card, devices: list[Any]) -> None:
    """Draws from logits, of x_{t-1} by a reverse step, and of x_t."""
    logits, _, integers, t, u = loss_arguments(None, args, K, SHAPE)[1:6]
    report(Form("categorical", d3pm.categorical, (logits, u)), args, card, devices)
    for family in choose_families(names):
        process = FAMILIES[family](K)
        belief = args.belief or "d3pm"
        step = functools.partial(d3pm.p_sample, belief=belief)
        report(
            Form(f"p_sample, {family}, {belief}", step, (process, logits, integers, t, u)),
            args,
            card,
            devices,
        )
        report(
            Form(f"q_sample, {family}", d3pm.q_sample, (process, integers, t, u)), args, card, devices, logits
        )


def chain(args: argparse.Namespace, names: list[str], card: cards.Card, devices: list[Any]) -> None:
    """A row of a sampler, from logits on: infilling, leaping, masking again, revealing."""
    logits, integers, _, _, u = loss_arguments(None, args, K, SHAPE)[1:6]
    families = choose_families(names)
    programs = [(family, "infill", named.ancestral()) for family in families]
    programs += [(family, "tau_leaping", named.tau_leaping()) for family in families if family != "gaussian"]
    if "absorbing" in families:
        samplers = (named.remdm_cap, named.remdm_confidence, named.least_entropy, named.maskgit, named.p2)
        programs += [("absorbing", sampler.__name__, sampler()) for sampler in samplers]
    for family, name, sampler in programs:
        process = FAMILIES[family](K)
        function = functools.partial(take_row, sampler)
        known = jax.ShapeDtypeStruct(SHAPE, jnp.bool_)
        form = Form(f"{name}, {family}", function, (process, logits, integers, integers, known, u))
        report(form, args, card, devices, logits)


def take_row(
    sampler: sampling.Sampler, process: Any, logits: Any, x: Any, x0: Any, known: Any, u: Any
) -> sampling.Taken:
    """Takes a row of a chain half way down, with some places known."""
    denoiser = sampling.Denoiser(process, lambda xt, time: logits, belief="leave_one_out")
    places = sampling.Known(x0, known)
    prepared = prepare(denoiser, x, lambda row, stream: u, sampler, places, None)
    row = sampling.Row(*(jnp.asarray(number, jnp.int32) for number in prepared.plan[len(prepared.plan) // 2]))
    memory = prepared.step.start(prepared.view(prepared.x, {}, row))
    view = prepared.view(prepared.x, memory, row)
    if sampler.step.goes_by_masks:
        # Where nothing is masked it would do nothing, and of two branches the lesser one counts.
        return prepared.step.reveal(view, view.is_masked(view.may_change))
    return prepared.step.take(view)


def vocabulary(args: argparse.Namespace, names: list[str], card: cards.Card, devices: list[Any]) -> None:
    """The absorbing loss and a draw for 4 x 1,024 tokens of a vocabulary of 50,257."""
    process = FAMILIES["absorbing"](50_257)
    arguments = loss_arguments(process, args, 50_257, (4, 1024))
    report(Form("K = 50,257: loss, absorbing", loss_with_gradient, arguments), args, card, devices)
    report(
        Form("K = 50,257: categorical", d3pm.categorical, (arguments[1], arguments[5])), args, card, devices
    )


def projected(args: argparse.Namespace, names: list[str], card: cards.Card, devices: list[Any]) -> None:
    """The loss of hidden states and a kernel at K = 50,304, with both gradients, beside logits in memory."""
    K, shape, width = 50_304, (4 * len(devices), 1024), 768
    floats = jnp.bfloat16 if args.bf16 else jnp.float32
    hidden = jax.ShapeDtypeStruct((*shape, width), floats)
    kernel = jax.ShapeDtypeStruct((width, K), floats)
    for family in [name for name in names if name in FAMILIES] or ["absorbing"]:
        process, logits, *rows = loss_arguments(FAMILIES[family](K), args, K, shape)
        for name, of_logits in (("in memory", in_memory), ("projected", of_projection)):
            function = functools.partial(project_with_gradient, of_logits, family == "absorbing")
            form = Form(f"K = 50,304: {family}, {name}", function, (process, hidden, kernel, *rows))
            report(form, args, card, devices, logits)


def head(args: argparse.Namespace, names: list[str], card: cards.Card, devices: list[Any]) -> None:
    """The logistic head and the uniform loss, with the gradient by the two numbers of the head, batch 128."""
    process = FAMILIES["uniform"](K)
    shape = (128, 3072)
    output = jax.ShapeDtypeStruct((*shape, 2), jnp.float32)
    arguments = (process, output, *loss_arguments(process, args, K, shape)[2:])
    form = Form("logistic head and loss, uniform, batch 128", head_with_gradient, arguments)
    report(form, args, card, devices, logits=jax.ShapeDtypeStruct((*shape, K), jnp.float32))


def compared(args: argparse.Namespace, names: list[str], card: cards.Card, devices: list[Any]) -> None:
    """What ours stands beside: Optax's cross entropy, the official dense form, draws by Gumbel noise."""
    import optax

    def cross_entropy(logits: jax.Array, x0: jax.Array) -> Any:
        def value(logits: jax.Array) -> jax.Array:
            return optax.softmax_cross_entropy_with_integer_labels(logits, x0).mean()

        return jax.value_and_grad(value)(logits)

    logits, x0, xt, t = loss_arguments(None, args, K, SHAPE)[1:5]
    table = jax.ShapeDtypeStruct((T + 1, K, K), jnp.float32)
    key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype)
    for form in (
        Form("Optax's cross entropy, with its gradient", cross_entropy, (logits, x0)),
        Form("the official form of the loss", forms.official_loss, (table, table, logits, x0, xt, t)),
        Form("draw from logits by Gumbel noise", forms.gumbel, (key, logits)),
        Form("q_sample in the official form", forms.official_q_sample, (key, table, x0, t)),
    ):
        report(form, args, card, devices, logits)


def step(args: argparse.Namespace, names: list[str], card: cards.Card, devices: list[Any]) -> None:
    """The training step of configs."""
    configs = [name for name in names if name not in FAMILIES]
    for name in configs or ("cifar10_uniform", "shakespeare_absorbing", "mnist_uniform", TEXT):
        title = f"step of {name}" + ", bfloat16" * args.bf16 + f", fsdp {args.fsdp}" * (args.fsdp > 1)
        try:
            config, mesh = open_config(name, args, devices)
            with cards.as_default(mesh):
                parts = loop.build_described_run(config, mesh)
                measured = on_cards.measure_on_card(parts, card)
        except (UserError, jax.errors.JaxRuntimeError) as error:
            print(line([title, f"FAILS: {one_line(error)}"]), flush=True)
            continue
        notes = f"; MFU at most {measured.most_mfu:.0%}; {measured.cost.memory / 1e9:.2f} GB a card"
        if measured.fallback:
            notes += f"; {measured.fallback}"
        print_row(title, measured.program, card, measured.cost.added, None, "", notes)
        if args.kernels:
            print_kernels(measured.program)


ROWS: dict[str, Callable[..., None]] = {
    "loss": loss,
    "draw": draw,
    "chain": chain,
    "head": head,
    "vocabulary": vocabulary,
    "projected": projected,
    "compared": compared,
    "step": step,
}


def loss_with_gradient(
    process: Any, logits: Any, x0: Any, xt: Any, t: Any, weight: Any, *, belief: Any = "d3pm"
) -> Any:
    def value(logits: jax.Array) -> jax.Array:
        return (d3pm.hybrid(process, logits, x0, xt, t, 0.001, belief=belief).loss * weight).sum()

    return jax.value_and_grad(value)(logits)


def project_with_gradient(
    of_logits: Callable[..., Any], extra_mask: bool, process: Any, hidden: Any, kernel: Any, *rows: Any
) -> Any:
    def finish(output: jax.Array, xt: jax.Array) -> jax.Array:
        logits = d3pm.residual(output, xt)
        return d3pm.forbid(logits, process.K - 1) if extra_mask else logits

    def value(hidden: jax.Array, kernel: jax.Array) -> jax.Array:
        return of_logits(process, Projection(hidden, kernel, None, rows[1], finish), *rows)

    return jax.value_and_grad(value, (0, 1))(hidden, kernel)


def in_memory(process: Any, logits: Projection, x0: Any, xt: Any, t: Any, weight: Any) -> jax.Array:
    return (d3pm.posterior_kl(process, logits.logits(), x0, xt, t) * weight).sum()


def of_projection(process: Any, logits: Projection, x0: Any, xt: Any, t: Any, weight: Any) -> jax.Array:
    return losses.projected(process, losses.posterior_kl, logits, (x0, xt, t), weight).total


def head_with_gradient(process: Any, output: Any, x0: Any, xt: Any, t: Any, weight: Any) -> Any:
    def value(output: jax.Array) -> jax.Array:
        loc, log_scale = LogisticHead().parameters(output, xt, K)
        hybrid = fused_logistic.hybrid(process, loc, log_scale, x0, xt, t, 0.001, belief="official")
        return (hybrid.loss * weight).sum()

    return jax.value_and_grad(value)(output)


def loss_arguments(process: Any, args: argparse.Namespace, K: int, shape: tuple[int, int]) -> tuple[Any, ...]:
    """Returns the process, and the shapes of logits, x_0, x_t, t, and numbers of each element."""
    floats = jnp.bfloat16 if args.bf16 else jnp.float32
    integers = jax.ShapeDtypeStruct(shape, jnp.int32)
    t = jax.ShapeDtypeStruct(shape[:1], jnp.int32)
    weight = jax.ShapeDtypeStruct(shape, jnp.float32)
    return process, jax.ShapeDtypeStruct((*shape, K), floats), integers, integers, t, weight


def report(
    form: Form, args: argparse.Namespace, card: cards.Card, devices: list[Any], logits: Any = None
) -> None:
    """Compiles a program and prints its row; a program that fails says why."""
    mesh = jax.sharding.Mesh(np.array(devices), ("devices",))

    def spread(leaf: Any) -> Any:
        is_batch = leaf.ndim > args.axis and leaf.shape[0] in (SHAPE[0], 128, 4)
        axes = [None] * args.axis + ["devices"]
        spec = PartitionSpec(*axes) if is_batch and len(devices) > 1 else PartitionSpec()
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    arguments = jax.tree.map(spread, form.args)
    if logits is None:
        # The table of a dense process is larger than they are.
        logits = max(jax.tree.leaves(form.args), key=lambda leaf: leaf.size * (leaf.shape[:1] != (T + 1,)))
    with tempfile.TemporaryDirectory() as folder:
        try:
            trace = functools.partial(jax.jit(form.function).trace, *arguments)
            compiled = cards.compile_for(card, mesh, trace, {**DUMP, "xla_dump_to": folder})
        except jax.errors.JaxRuntimeError as error:
            print(line([form.name, f"FAILS: {one_line(error)}"]), flush=True)
            return
        registers = count_registers(Path(folder), card)
    one_pass = logits.size * logits.dtype.itemsize / len(devices)
    temporaries = compiled.executable.memory_analysis().temp_size_in_bytes
    print_row(form.name, compiled.program, card, temporaries, one_pass, registers)
    if args.kernels:
        print_kernels(compiled.program)


def print_row(
    name: str,
    program: programs.Program,
    card: cards.Card,
    temporaries: int,
    one_pass: float | None,
    registers: str,
    notes: str = "",
) -> None:
    flops = program.flops()
    flops.pop("vector", None)
    works = ", ".join(
        f"{work} {moved / 1e6:,.0f}" for work, moved in program.bytes_by_work().items() if moved
    )
    collectives = ", ".join(
        f"{kernel.runs} {kernel.collective} of {' '.join(map(str, kernel.results))}"
        for kernel in program.kernels
        if kernel.collective
    )
    if len(collectives) > 200:
        collectives = ", ".join(f"{number} {kind}" for kind, number in program.collectives().items())
    cells = [
        name,
        f"{program.launches:,}",
        f"{program.bytes / 1e6:,.0f}",
        f"{program.bytes / one_pass:.2f}" if one_pass else "",
        f"{temporaries / 1e6:,.0f}",
        ", ".join(f"{number / 1e12:.3g} {kind}" for kind, number in flops.most_common()),
        f"{1e3 * program.seconds(card.bandwidth, card.peaks):.3f}",
        registers,
        f"{works}; {collectives or 'no collective'}{notes}",
    ]
    print(line(cells), flush=True)


def print_kernels(program: programs.Program) -> None:
    """Lists the kernels that move the most."""
    for kernel in sorted(program.kernels, key=lambda kernel: -kernel.runs * kernel.bytes)[:40]:
        results = " ".join(map(str, kernel.results))
        moved = f"{kernel.runs} x {kernel.bytes / 1e6:.3f} MB"
        print(f"    {moved}  {kernel.work}: {kernel.name} -> {results[:60]}  {kernel.origin}", flush=True)


def count_registers(folder: Path, card: cards.Card) -> str:
    """Asks ptxas for the most registers of a kernel of a program, and for the bytes that kernels spill."""
    if card.cores is None:
        return ""
    most = 0
    spilled = 0
    for file in folder.glob("*.ptx"):
        if not file.stat().st_size:
            continue
        words = [str(cards.find_toolkit(card) / "bin" / "ptxas"), "-v", f"-arch={read_architecture(file)}"]
        printed = subprocess.run([*words, str(file), "-o", os.devnull], capture_output=True, text=True).stderr
        most = max([most, *find_numbers(printed, "Used", 1)])
        spilled += sum(find_numbers(printed, "spill", -2))
    if not most:
        # A kernel has some. A 0 would pass for a good figure.
        number = len(list(folder.glob("*.ptx")))
        sys.exit(
            f"no registers read, of {number} files of PTX that XLA of jax {jax.__version__} wrote: change "
            f"DUMP in {__file__} to options with which it writes them, or install a ptxas that reads them"
        )
    return f"{most}; {spilled} B"


def read_architecture(file: Path) -> str:
    """Returns the target of a file of PTX, such as sm_90a."""
    target = next(text for text in file.read_text().splitlines() if text.startswith(".target"))
    return target.split()[1].rstrip(",")


def find_numbers(printed: str, word: str, offset: int) -> Iterator[int]:
    """Yields the numbers that stand so many words from a word in what ptxas prints."""
    words = printed.replace(",", " ").split()
    for place, text in enumerate(words):
        if text == word and words[place + offset].isdecimal():
            yield int(words[place + offset])


def open_config(name: str, args: argparse.Namespace, devices: list[Any]) -> tuple[Any, Any]:
    """Returns a config, which needs no data of yours, and the mesh of its training."""
    sys.path.insert(0, str(ROOT))
    from tests.config.shipped import opened

    os.chdir(tempfile.mkdtemp())
    if name == TEXT:
        config, _ = opened(ROOT / "configs" / "shakespeare_absorbing.py")
        model = Transformer(width=768, num_layers=12, num_heads=12, see_time=False)
        data = dataclasses.replace(config.data, length=1024)
        config = dataclasses.replace(config, model=model, data=data)
    else:
        config, _ = opened(ROOT / "configs" / f"{name}.py")
    if args.bf16:
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, compute="bfloat16"))
    config = dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, fsdp=args.fsdp))
    return config, make_mesh(args.fsdp, devices)


if __name__ == "__main__":
    main()
