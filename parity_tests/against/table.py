"""The comparisons of a file, as one table and a few sentences."""

import math
from collections.abc import Iterable, Iterator, Sequence

from parity_tests.against.comparing import Finding
from parity_tests.against.hints import BUT_FOR
from parity_tests.against.signatures import PROGRAM
from parity_tests.cases import K, T

NUMBERS = ("differ", "of", "in", "type", "difference", "yours", "JAX")
HEAD: tuple[str, ...] = ("function", "process", "", *NUMBERS, "input")


def rows(findings: Sequence[Finding], every: bool) -> list[tuple[str, ...]]:
    """A line for what agrees of a function and for each process where it differs; `every`: for each call."""
    if every:
        return [HEAD, *(_line([finding], finding.process) for finding in findings)]
    lines = [HEAD]
    for of_function in _groups([finding for finding in findings if not finding.skipped], "function"):
        agreeing = []
        differing_groups = []
        for of_process in _groups(of_function, "process"):
            if differing(of_process):
                differing_groups.append(of_process)
            else:
                agreeing.append(of_process)
        if agreeing:
            processes = ", ".join(group[0].process for group in agreeing)
            if len(agreeing) > 1 and not differing_groups and of_function[0].function not in PROGRAM:
                processes = f"all {len(agreeing)}"
            lines.append(_line([finding for group in agreeing for finding in group], processes))
        lines += [_line(group, group[0].process) for group in differing_groups]
    return lines


def sentences(findings: Sequence[Finding]) -> list[str]:
    """The tested reasons of the differences, what was skipped, and how many functions differ."""
    tested = []
    dtypes: dict[str, None] = {}  # those in which they were tested, in their order
    for group in _groups(differing(findings), "function"):
        lines = _hint_lines(group)
        tested += lines
        if lines:
            dtypes[group[0].dtype] = None
    if tested:
        tested = [f"Tested on every value in {', '.join(dtypes)}:", *tested]

    names = dict.fromkeys(finding.function for finding in findings if not finding.skipped)
    failing = dict.fromkeys(finding.function for finding in findings if fails(finding))
    wrong = dict.fromkeys(finding.function for finding in differing(findings))
    wrong = [name for name in wrong if name not in failing]
    if wrong or failing:
        parts = []
        if wrong:
            parts.append(f"{len(wrong)} of {len(names)} functions differ: {', '.join(wrong)}")
        if failing:
            verb = "fails" if len(failing) == 1 else "fail"
            whole = "" if wrong else f" of {len(names)} functions"
            parts.append(f"{len(failing)}{whole} {verb}: {', '.join(failing)}")
        verdict = "; ".join(parts)
    elif names:
        verdict = f"all of {len(names)} functions agree"
    else:
        verdict = "nothing to compare"
    total = sum(finding.size for finding in findings)
    processes = ""
    if any(name not in PROGRAM for name in names):
        processes = f", of processes with K = {K} and T = {T}"
    last = f"{total:,} numbers compared{processes}; {verdict}"
    return ["\n".join(lines) for lines in (tested, _skipped_lines(findings), [last]) if lines]


def fails(finding: Finding) -> bool:
    """Whether a function raises, or gives no such tensor: it has no numbers to differ."""
    return bool(finding.note) and finding.quantity in ("value", "draw")


def differing(findings: Iterable[Finding]) -> list[Finding]:
    """The findings in which numbers differ or something else is wrong."""
    return [finding for finding in findings if not finding.ok]


def _hint_lines(group: Sequence[Finding]) -> list[str]:
    """The hints of one function, each with the processes where it holds."""
    processes: dict[str, list[str]] = {}  # by hint
    for of_process in _groups(group, "process"):
        for hint in _hints(of_process):
            processes.setdefault(hint, []).append(of_process[0].process)
    lines = []
    for hint, names in processes.items():
        line = f"{group[0].function} is that of JAX {hint}"
        if all(names):
            line += f": {', '.join(names)}"
        lines.append(line)
    return lines


def _skipped_lines(findings: Sequence[Finding]) -> list[str]:
    """Which functions raised NotImplementedError, by the processes, or else the input, for which they did."""
    functions: dict[str, list[str]] = {}  # by the words of where
    for group in _groups([finding for finding in findings if finding.skipped], "function"):
        function = group[0].function
        of_function = [finding for finding in findings if finding.function == function]
        implemented = {finding.process for finding in of_function if not finding.skipped}
        where: dict[str, None] = {}
        for finding in group:
            # A process that works for another input is not what the function lacks.
            place = finding.input if finding.process in implemented else finding.process
            if place not in ("", "any"):
                where[place] = None
        words = ""
        if where:
            words = f" for {', '.join(where)}"
        functions.setdefault(words, []).append(function)
    return [f"not implemented{words}: {', '.join(names)}" for words, names in functions.items()]


def _hints(findings: Iterable[Finding]) -> list[str]:
    """The first slip that gives every value of the first float type that differs, or else descriptions."""
    values = [finding for finding in findings if finding.quantity in ("value", "draw") and finding.differ]
    if not values:
        return []
    values = [finding for finding in values if finding.dtype == values[0].dtype]
    common = [hint for hint in values[0].hints if all(hint in finding.hints for finding in values)]
    if common and not common[0].startswith(BUT_FOR):
        return common[:1]
    return common


def _line(group: Sequence[Finding], processes: str) -> tuple[str, ...]:
    """One line for comparisons; where some differ, the numbers are of the worst in the first float type."""
    wrong = differing(group)
    if not wrong:
        findings = list(group)
        worst = _worst(findings)
        verdict = "skipped" if worst.skipped else "ok"
        place = ""
    else:
        findings = wrong
        first = (wrong[0].dtype, wrong[0].quantity)
        worst = _worst([finding for finding in wrong if (finding.dtype, finding.quantity) == first])
        # A NaN or an infinity is the largest difference, in whichever type or quantity.
        if not worst.note:
            unlike = [finding for finding in wrong if not math.isfinite(finding.difference)]
            worst = max([worst, *unlike], key=_size_of_difference)
        verdict = "skipped" if worst.skipped else "DIFFERS"
        if fails(worst):
            verdict = "FAILS"
        place = "; ".join(filter(None, (worst.note, worst.input)))

    difference = f"{worst.difference:.2g}"
    if worst.note or worst.skipped:
        difference = ""
    quantities = dict.fromkeys(finding.quantity.partition(" ")[0] for finding in findings)
    return (
        worst.function,
        processes,
        verdict,
        f"{sum(finding.differ for finding in group):,}",
        f"{sum(finding.size for finding in group):,}",
        ", ".join(quantities),
        ", ".join(dict.fromkeys(finding.dtype for finding in findings)),
        difference,
        worst.theirs,
        worst.ours,
        place,
    )


def _worst(findings: Sequence[Finding]) -> Finding:
    """The first that could not be compared, or else the one with the largest difference."""
    for finding in findings:
        if finding.note:
            return finding
    return max(findings, key=_size_of_difference)


def _size_of_difference(finding: Finding) -> float:
    """The largest difference, infinite where it is NaN: a NaN or an infinity on one side alone."""
    return math.inf if math.isnan(finding.difference) else finding.difference


def _groups(findings: Iterable[Finding], by: str) -> Iterator[list[Finding]]:
    """Groups findings of one function, or of one process, in the order in which they first came."""
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(getattr(finding, by), []).append(finding)
    yield from groups.values()
