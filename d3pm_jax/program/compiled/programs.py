"""Counts what a compiled program moves and computes, from its text: the HLO that XLA has scheduled.

What is counted is each kernel: how often it runs, the bytes of its results and operands, its floating-point
operations. Rules that are not plain:

- Of an operand that is only gathered or sliced from, what is taken counts, in sectors of 32 bytes, at most
  the whole operand. Of an array that is updated in place, the update counts.
- Of a conditional one branch runs: the one that moves the least counts. The other one is for numbers that are
  out of the ordinary.
- The body of a loop counts as often as it runs. Where XLA does not know how often, it counts once, and
  `Program.loops_of_unknown_length` says so.
- A Pallas kernel shows its operands once in the text, however often it reads them: what it moves, and its
  products, are counted from its jaxpr, see `compiled.pallas`. What several of its programs read, as the keys
  and values of a head, moves once where a cache holds it.

Arrays that fit the cache of a card may never reach its memory between two kernels. No count here knows that.
"""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from d3pm_jax.projection import ROUNDS

# What moves nothing: names for arrays that are there, and numbers that are part of the program.
FREE = frozenset(
    [
        "parameter",
        "constant",
        "tuple",
        "get-tuple-element",
        "bitcast",
        "after-all",
        "opt-barrier",
        "partition-id",
        "replica-id",
        "add-dependency",
        "domain",
        "get-dimension-size",
    ]
)
COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
# Operations of which each element of the result is one floating-point operation at least.
ARITHMETIC = frozenset(
    [
        "add",
        "subtract",
        "multiply",
        "divide",
        "maximum",
        "minimum",
        "power",
        "exponential",
        "exponential-minus-one",
        "log",
        "log-plus-one",
        "tanh",
        "logistic",
        "sqrt",
        "rsqrt",
        "cbrt",
        "sine",
        "cosine",
        "tan",
        "atan2",
        "erf",
        "negate",
        "abs",
        "floor",
        "ceil",
        "round-nearest-afz",
        "round-nearest-even",
        "remainder",
    ]
)
# Operations that take elements of their first operand out of it.
TAKING = frozenset(["gather", "dynamic-slice", "slice"])
# Operations that write a part of their first operand, in place where it is a result of the kernel.
UPDATING = frozenset(["dynamic-update-slice", "scatter"])
# The memory of a card is read in sectors of so many bytes: a single number that is taken costs one.
SECTOR = 32


class Array(NamedTuple):
    """Describes an array of a program."""

    type: str
    dims: tuple[int, ...]
    layout: tuple[int, ...] = ()  # its axes, the one whose elements lie beside each other first

    @property
    def size(self) -> int:
        """Counts its elements."""
        return math.prod(self.dims)

    @property
    def bits(self) -> int:
        """Returns the bits of an element."""
        if self.type == "pred":
            return 8
        # "f32", "s8", "f8e4m3fn"; a "token", which orders effects, has none.
        return int(_find(r"[a-z]+(\d+)", self.type) or 0)

    @property
    def bytes(self) -> int:
        """Returns its bytes; elements of less than a byte are packed."""
        return self.size * self.bits // 8

    def __str__(self) -> str:
        """Writes it as HLO does: "f32[32,256]"."""
        return f"{self.type}[{','.join(map(str, self.dims))}]"


class Instruction(NamedTuple):
    """Holds a line of a program: `name = arrays opcode(operands), attributes`."""

    name: str
    arrays: tuple[Array, ...]  # its result; a tuple has several
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    is_root: bool

    @property
    def size(self) -> int:
        """Counts the elements of its result."""
        return sum(array.size for array in self.arrays)

    @property
    def bytes(self) -> int:
        """Returns the bytes of its result."""
        return sum(array.bytes for array in self.arrays)


Computation = dict[str, Instruction]  # by name, in the order of the text


class CallCount(NamedTuple):
    """Counts calls of a Pallas kernel."""

    shown: int  # bytes of operands and results
    moved: int  # bytes
    flops: Counter[str]  # of products, by type


# By the name of a kernel and the bytes that a call shows; all calls of a name are under 0 bytes.
CallCounts = Mapping[tuple[str, int], CallCount]


class Kernel(NamedTuple):
    """Counts a kernel of a compiled program."""

    name: str
    work: str  # its class, see `_classify`
    runs: int
    bytes: int  # of one run, as `flops`
    flops: Mapping[str, int]  # by type of matrix product: "bf16", "tf32", "f32", "f64"; others are "vector"
    origin: str  # the operation of JAX that it comes from
    results: tuple[Array, ...] = ()
    collective: str = ""  # its kind, where it is a collective


@dataclasses.dataclass(frozen=True)
class Program:
    """Holds the kernels of a compiled program, as one device runs them."""

    kernels: tuple[Kernel, ...]
    loops_of_unknown_length: int

    @property
    def launches(self) -> int:
        """Counts the kernels that run, each as often as it does."""
        return sum(kernel.runs for kernel in self.kernels)

    @property
    def bytes(self) -> int:
        """Returns the bytes that all kernels move."""
        return sum(kernel.runs * kernel.bytes for kernel in self.kernels)

    def flops(self) -> Counter[str]:
        """Counts the operations by type, see `Kernel.flops`."""
        return self._sum(lambda kernel: kernel.flops)

    def bytes_by_work(self) -> dict[str, int]:
        """Returns the bytes by class of work, the most first."""
        return dict(self._sum(lambda kernel: {kernel.work: kernel.bytes}).most_common())

    def collectives(self) -> dict[str, int]:
        """Counts the collectives by kind."""
        total = self._sum(lambda kernel: {kernel.collective: 1})
        del total[""]  # of kernels that are none
        return dict(total)

    def _sum(self, count: Callable[[Kernel], Mapping[str, int]]) -> Counter[str]:
        """Sums what is counted of one run of each kernel, as often as it runs."""
        total: Counter[str] = Counter()
        for kernel in self.kernels:
            for name, number in count(kernel).items():
                total[name] += kernel.runs * number
        return total

    def seconds(self, bandwidth: float, peaks: Mapping[str, float]) -> float:
        """Returns the time below which no device runs the kernels one after the other.

        Each takes at least as long as its bytes at the bandwidth, and as its operations at their peak.

        Args:
            bandwidth: bytes per second of the device's memory.
            peaks: operations per second by type, as in `Kernel.flops`; a type without one takes no time.
        """
        total = 0.0
        for kernel in self.kernels:
            compute = sum(number / peaks.get(kind, math.inf) for kind, number in kernel.flops.items())
            total += kernel.runs * max(kernel.bytes / bandwidth, compute)
        return total


def count_program(text: str, pallas_calls: CallCounts | None = None) -> Program:
    """Counts the kernels of a compiled program.

    Args:
        text: what `compiled.as_text()` returns.
        pallas_calls: what Pallas kernels move and multiply, see `pallas.count_calls`. One that is not there
            moves its operands and results, and has no products.
    """
    computations, entry = parse_computations(text)
    return _count_computation(computations, entry, 1, pallas_calls or {})


def parse_computations(text: str) -> tuple[dict[str, Computation], str]:
    """Parses the text of a program into its computations by name; returns the name of the entry too."""
    computations: dict[str, Computation] = {}
    entry = ""
    current: Computation | None = None
    for line in text.split("\n"):
        if current is None:
            header = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
            if header:
                current = computations.setdefault(header[2], {})
                if header[1]:
                    entry = header[2]
        elif line == "}":
            current = None
        elif " = " in line:
            instruction = _parse_instruction(line)
            current[instruction.name] = instruction
    return computations, entry


def _parse_instruction(line: str) -> Instruction:
    # The name of the operation is the first word that a bracket follows: no type has one behind a space.
    match = re.match(r"\s*(ROOT )?%?(\S+) = (.*?) ([a-z][\w\-]*)(\(.*)", line)
    assert match is not None, line
    root, name, result, opcode, arguments = match.groups()
    arrays = tuple(
        Array(element_type, _parse_numbers(dims), _parse_numbers(layout))
        for element_type, dims, layout in re.findall(r"([a-z]\w*)\[([\d,<=]*)\](?:\{([\d,]*))?", result)
    )
    end = _end_of_brackets(arguments)
    operands = tuple(re.findall(r"%([\w.\-]+)", arguments[:end]))
    return Instruction(name, arrays, opcode, operands, arguments[end:], bool(root))


def _find(pattern: str, text: str) -> str:
    """Returns what stands in the brackets of a pattern, where it occurs first; "" where it does not."""
    match = re.search(pattern, text)
    if match is None:
        return ""
    return match[1]


def _parse_numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text))


def _end_of_brackets(text: str) -> int:
    """Returns the place behind the bracket that closes the one at the beginning of a text."""
    depth = 0
    for place, character in enumerate(text):
        if character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
            if not depth:
                return place + 1
    return len(text)


def _count_computation(
    computations: dict[str, Computation], name: str, runs: int, pallas_calls: CallCounts
) -> Program:
    """Counts a computation that runs so often, with those that it calls."""
    kernels: list[Kernel] = []
    loops_of_unknown_length = 0
    for instruction in computations[name].values():
        opcode = instruction.opcode
        attributes = instruction.attributes
        if opcode in FREE or opcode.endswith(("-done", "-update")):
            continue
        called = []
        trips = 1
        if opcode == "while":
            called = _called(attributes, "body")
            known_trips = _find(r'"known_trip_count":\{"n":"(\d+)"\}', attributes)
            known_trips = known_trips or _find(f"{ROUNDS}/while", attributes)
            loops_of_unknown_length += not known_trips
            trips = int(known_trips or 1)
        elif opcode == "conditional":
            called = _called(attributes, "branch_computations", "true_computation", "false_computation")
        elif opcode in ("call", "async-start"):
            called = _called(attributes, "to_apply", "calls")
        if called:
            choices = [
                _count_computation(computations, inner, runs * trips, pallas_calls) for inner in called
            ]
            program = min(choices, key=lambda choice: choice.bytes)
            kernels += program.kernels
            loops_of_unknown_length += program.loops_of_unknown_length
        else:
            operands = [computations[name][operand] for operand in instruction.operands]
            kernels.append(_count_kernel(computations, instruction, operands, runs, pallas_calls))
    return Program(tuple(kernels), loops_of_unknown_length)


def _count_kernel(
    computations: dict[str, Computation],
    instruction: Instruction,
    operands: Sequence[Instruction],
    runs: int,
    pallas_calls: CallCounts,
) -> Kernel:
    """Counts an instruction that is a kernel of its own."""
    inner = _as_computation(instruction, operands)
    if instruction.opcode in ("fusion", "fusion-start"):
        inner = computations[_called(instruction.attributes, "calls")[0]]
    moved = _count_bytes(inner)
    flops = _count_flops(inner)
    origin = _find(r'op_name="([^"]*)"', instruction.attributes)
    work = _classify(instruction, inner)
    if work == "Pallas":
        # A loop over layers cuts its operands out of those of all layers in one fusion with the call.
        call = next(part for part in inner.values() if part.opcode == "custom-call")
        origin = _find(r'op_name="([^"]*)"', call.attributes) or origin
        # The operation of JAX is called jit(f)/.../NAME/pallas_call, or vmap(NAME).
        kernel_name = _find(r"([^/()]*)\)*/\w+$", origin)
        count = pallas_calls.get((kernel_name, moved)) or pallas_calls.get((kernel_name, 0))
        if count is not None and count.shown:
            share = moved / count.shown
            moved = round(share * count.moved)
            flops = Counter({kind: round(share * number) for kind, number in count.flops.items()})
    collective = instruction.opcode.removesuffix("-start") if work == "collectives" else ""
    results = _find_root(inner).arrays
    return Kernel(instruction.name, work, runs, moved, flops, origin, results, collective)


def _called(attributes: str, *names: str) -> list[str]:
    """Returns the computations that attributes of these names call."""
    called = [_find(rf"\b{name}=(\{{[^}}]*\}}|%?[\w.\-]+)", attributes) for name in names]
    return [word.lstrip("%") for text in called for word in re.findall(r"%?[\w.\-]+", text)]


def _as_computation(instruction: Instruction, operands: Sequence[Instruction]) -> Computation:
    """Makes the computation of one instruction, as if its operands were the parameters of a fusion."""
    inner = {
        operand.name: operand._replace(opcode="parameter", operands=(), is_root=False) for operand in operands
    }
    arrays = instruction.arrays
    num_operands = sum(len(operand.arrays) for operand in operands)
    # The start of a collective, and of a copy, returns its operands beside its results.
    if instruction.opcode.endswith("-start") and len(arrays) > num_operands:
        arrays = arrays[num_operands:]
    return {**inner, instruction.name: instruction._replace(arrays=arrays, is_root=True)}


def _find_root(computation: Computation) -> Instruction:
    return next(instruction for instruction in computation.values() if instruction.is_root)


def _find_results(computation: Computation) -> list[Instruction]:
    """Returns what makes the results of a kernel, behind views of it in another shape."""
    root = _find_root(computation)
    results = [root]
    if root.opcode == "tuple":
        results = [computation[name] for name in root.operands]
    for i, result in enumerate(results):
        while result.opcode == "bitcast":
            result = computation[result.operands[0]]
        results[i] = result
    return results


def _count_needed(computation: Computation, in_sectors: bool) -> dict[str, float]:
    """Counts, for each instruction of a kernel, the elements of its result that the kernel needs.

    From the results back to the parameters: an operand of an elementwise operation is needed as far as its
    result is; one that is taken from, as many elements as are taken; of all others the same share as of the
    result. At most all elements count, since what is read twice comes from a cache.

    Args:
        computation: of the kernel.
        in_sectors: count whole sectors of memory where elements are taken, not those elements alone.
    """
    needed: dict[str, float] = dict.fromkeys(computation, 0.0)
    root = _find_root(computation)
    needed[root.name] = float(root.size)
    in_place = {result.name for result in _find_results(computation) if result.opcode in UPDATING}
    for instruction in reversed(computation.values()):
        n = min(needed[instruction.name], float(instruction.size))
        needed[instruction.name] = n
        if not n:
            continue
        share = n / instruction.size
        for position, name in enumerate(instruction.operands):
            operand = computation.get(name)
            if operand is None:
                continue
            if instruction.opcode in TAKING and position == 0:
                read_for_each = _round_up_to_sectors(instruction, operand) if in_sectors else 1.0
                needed[name] += n * read_for_each
            elif instruction.opcode == "broadcast":
                needed[name] += min(n, operand.size)
            elif instruction.name in in_place and position == 0:
                continue
            else:
                needed[name] += share * operand.size
    return needed


def _round_up_to_sectors(instruction: Instruction, operand: Instruction) -> float:
    """Returns how many elements are read for each that is taken, where whole sectors are read."""
    array = operand.arrays[0]
    taken = instruction.arrays[0].dims
    if instruction.opcode == "gather":
        taken = _parse_numbers(_find(r"slice_sizes=\{([\d,]*)\}", instruction.attributes))
    if len(taken) != len(array.dims) or not array.bits:
        return 1.0

    # Elements beside each other: whole axes, from the innermost on, and a part of the next.
    strides = _strides_of_slice(instruction)
    run = 1
    for axis in array.layout or reversed(range(len(array.dims))):
        if axis < len(strides) and strides[axis] > 1:
            if run == 1:
                return min(strides[axis], SECTOR * 8 / array.bits)
            break
        run *= taken[axis]
        if taken[axis] < array.dims[axis]:
            break
    run_bytes = run * array.bits / 8
    return max(1.0, math.ceil(run_bytes / SECTOR) * SECTOR / run_bytes)


def _strides_of_slice(instruction: Instruction) -> list[int]:
    """Returns how far apart the elements that a slice takes are, along each axis."""
    if instruction.opcode != "slice":
        return []
    limits = _find(r"slice=\{([^}]*)\}", instruction.attributes)
    return [int(stride or 1) for stride in re.findall(r"\[\d+:\d+:?(\d*)\]", limits)]


def _count_bytes(computation: Computation) -> int:
    """Counts the bytes that a kernel reads and writes."""
    needed = _count_needed(computation, in_sectors=True)
    total = 0.0
    for instruction in computation.values():
        if instruction.opcode == "parameter" and instruction.size:
            total += instruction.bytes * min(1.0, needed[instruction.name] / instruction.size)

    for result in _find_results(computation):
        if result.opcode == "dynamic-update-slice":
            total += computation[result.operands[1]].bytes
        elif result.opcode == "scatter":
            # (arrays.., indices, updates..): what is there is read, combined with the update, and written.
            number = (len(result.operands) - 1) // 2
            total += 2 * sum(computation[name].bytes for name in result.operands[number + 1 :])
        elif result.opcode != "parameter":
            total += result.bytes
    return round(total)


def _count_flops(computation: Computation) -> Counter[str]:
    """Counts the operations of a kernel by type."""
    needed = _count_needed(computation, in_sectors=False)
    total: Counter[str] = Counter()
    for instruction in computation.values():
        if not instruction.size:
            continue
        share = needed[instruction.name] / instruction.size
        arrays = [array for name in instruction.operands for array in computation[name].arrays]
        if instruction.opcode == "dot":
            axes = _parse_numbers(_find(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes))
            length = math.prod(arrays[0].dims[axis] for axis in axes)
            total[_type_of_product(instruction, arrays)] += round(2 * share * instruction.size * length)
        elif instruction.opcode == "convolution":
            flops = 2 * instruction.size * _count_kernel_per_result(instruction.attributes, arrays[1])
            total[_type_of_product(instruction, arrays)] += round(share * flops)
        elif instruction.opcode == "custom-call":
            total += _count_call(instruction, arrays)
        elif instruction.opcode in ARITHMETIC and _is_float(instruction.arrays[0]):
            total["vector"] += round(needed[instruction.name])
        elif instruction.opcode == "reduce" and arrays and _is_float(arrays[0]):
            total["vector"] += round(share * arrays[0].size)
    return +total


def _is_float(array: Array) -> bool:
    return array.type.startswith(("f", "bf"))


def _count_kernel_per_result(attributes: str, kernel: Array) -> int:
    """Counts the numbers of a kernel that enter one number of the result of a convolution."""
    labels = _find(r"dim_labels=\w+_(\w+)->", attributes)
    return kernel.size // kernel.dims[labels.index("o")]


def _count_call(call: Instruction, arrays: Sequence[Array]) -> Counter[str]:
    """Counts a call of a library: convolutions of cuDNN, products of cuBLAS."""
    target = _find(r'custom_call_target="([^"]*)"', call.attributes)
    flops = 0
    if target.startswith("__cudnn$conv"):
        kernel, output = _shapes_of_convolution(target, call.arrays[0], arrays)
        flops = 2 * output.size * _count_kernel_per_result(call.attributes, kernel)
    elif target.startswith("__cublas"):
        contracted = _find(r'"lhs_contracting_dimensions":\[([^\]]*)\]', call.attributes)
        length = math.prod(arrays[0].dims[axis] for axis in _parse_numbers(contracted))
        flops = 2 * call.arrays[0].size * length
    return Counter({_type_of_product(call, arrays): flops})


def _shapes_of_convolution(target: str, result: Array, arrays: Sequence[Array]) -> tuple[Array, Array]:
    """Returns the kernel and the output of the forward convolution that a call of cuDNN belongs to.

    The calls of its gradients have the labels of the forward convolution, image_kernel->output, too.
    """
    if "BackwardInput" in target:
        return arrays[1], arrays[0]
    if "BackwardFilter" in target:
        return result, arrays[1]
    return arrays[1], result


def _type_of_product(instruction: Instruction, arrays: Sequence[Array]) -> str:
    """Returns the arithmetic of a matrix product or convolution: "bf16", "tf32", "f32" or "f64".

    JAX asks for the highest precision where it wants all bits of float32; else a card takes TF32.
    """
    types = {array.type for array in arrays[:2]}
    if types <= {"bf16", "f16"}:
        return "bf16"
    if "f64" in types:
        return "f64"
    if re.search("highest|dot_f32_f32_f32", instruction.attributes, re.IGNORECASE):
        return "f32"
    return "tf32"


def _classify(instruction: Instruction, computation: Computation) -> str:
    """Returns the class of work of a kernel: the first that it is one of, or "elementwise"."""
    opcodes = {inner.opcode for inner in computation.values()}
    targets = " ".join(
        inner.attributes.partition("backend_config")[0]
        for inner in computation.values()
        if inner.opcode == "custom-call"
    )
    results = {result.opcode for result in _find_results(computation)}
    opcode = instruction.opcode.removesuffix("-start")
    is_one = {
        "Pallas": "triton" in targets or "mosaic" in targets or "tpu_custom_call" in targets,
        "convolutions": "convolution" in opcodes or "__cudnn$conv" in targets,
        "matrix products": "dot" in opcodes or "__cublas" in targets,
        "collectives": opcode in COLLECTIVES,
        "reductions": bool(opcodes & {"reduce", "reduce-window"}),
        "concatenations": "concatenate" in results,
        "gathers": bool(opcodes & {"gather", "scatter", "dynamic-slice", "dynamic-update-slice", "sort"}),
        "copies": opcodes
        <= FREE | {"copy", "copy-start", "transpose", "slice", "reshape", "pad", "reverse", "broadcast"},
    }
    return next((work for work, is_work in is_one.items() if is_work), "elementwise")
