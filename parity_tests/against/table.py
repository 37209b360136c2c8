"""What came of the comparisons, as one table and a few sentences."""

from collections.abc import Iterable, Iterator, Sequence

from parity_tests.against.comparing import Finding
from parity_tests.cases import K, T

NUMBERS = ("differ", "of", "in", "type", "difference", "yours", "JAX")
HEAD: tuple[str, ...] = ("function", "process", "", *NUMBERS, "input")


def rows(findings: Sequence[Finding], every: bool) -> list[tuple[str, ...]]:
    """A line for what agrees of a function and for each process where it differs; `every`: for each call."""
    if every:
        return [HEAD, *(_line([x], x.process) for x in findings)]
    lines = [HEAD]
    for of_function in _groups([x for x in findings if not x.skipped], "function"):
        groups = list(_groups(of_function, "process"))
        good = [group for group in groups if not bad(group)]
        if good:
            named = [group[0].process for group in good]
            processes = f"all {len(good)}" if len(good) == len(groups) > 1 else ", ".join(named)
            lines.append(_line([x for group in good for x in group], processes))
        lines += [_line(group, group[0].process) for group in groups if bad(group)]
    return lines


def sentences(findings: Sequence[Finding]) -> list[str]:
    """What the differences are, as far as it was tested, what was skipped, and how many functions differ."""
    tested = [line for group in _groups(bad(findings), "function") for line in _told(group)]
    wrong = dict.fromkeys(x.function for x in bad(findings))
    names, total = dict.fromkeys(x.function for x in findings if not x.skipped), sum(x.size for x in findings)
    end = f"{len(wrong)} of {len(names)} functions differ: {', '.join(wrong)}" if wrong else _all(len(names))
    dtypes = dict.fromkeys(group[0].dtype for group in _groups(bad(findings), "function") if _told(group))
    tested = [f"Tested on every value in {', '.join(dtypes)}:", *tested] if tested else []
    parts = (
        tested,
        _skipped(findings),
        [f"{total:,} numbers compared, of processes with K = {K} and T = {T}; {end}"],
    )
    return ["\n".join(part) for part in parts if part]


def bad(findings: Iterable[Finding]) -> list[Finding]:
    return [x for x in findings if not x.ok]


def _told(group: Sequence[Finding]) -> list[str]:
    """The hints of one function, each with the processes where it holds."""
    told: dict[str, list[str]] = {}
    for of_process in _groups(group, "process"):
        for hint in _hints(of_process):
            told.setdefault(hint, []).append(of_process[0].process)
    return [f"{group[0].function} is that of JAX {hint}{_on(where)}" for hint, where in told.items()]


def _skipped(findings: Sequence[Finding]) -> list[str]:
    """Which functions raised NotImplementedError, by the processes, or else the input, for which they did."""
    told: dict[str, list[str]] = {}
    for group in _groups([x for x in findings if x.skipped], "function"):
        done = {x.process for x in findings if x.function == group[0].function and not x.skipped}
        left = dict.fromkeys(x.input if x.process in done else x.process for x in group)
        where = ", ".join(x for x in left if x not in ("", "any"))
        told.setdefault(f" for {where}" if where else "", []).append(group[0].function)
    return [f"not implemented{where}: {', '.join(names)}" for where, names in told.items()]


def _all(count: int) -> str:
    return "nothing to compare" if not count else f"all of {count} functions agree"


def _on(processes: list[str]) -> str:
    return f": {', '.join(processes)}" if all(processes) else ""


def _hints(findings: Iterable[Finding]) -> list[str]:
    """Those that hold of every value that differs, in the first float type that does."""
    values = [x for x in findings if x.what == "value" and x.differ]
    values = [x for x in values if x.dtype == values[0].dtype]
    return [hint for hint in (values[0].hints if values else ()) if all(hint in x.hints for x in values)]


def _line(group: Sequence[Finding], processes: str) -> tuple[str, ...]:
    """One line for comparisons; where some differ, the numbers are of the worst in the first float type."""
    wrong = bad(group)
    found = wrong or list(group)
    first = [x for x in found if (x.dtype, x.what) == (found[0].dtype, found[0].what)] if wrong else found
    worst = next((x for x in first if x.note), None) or max(first, key=lambda x: x.difference)
    return (
        worst.function,
        processes,
        "skipped" if worst.skipped else "DIFFERS" if wrong else "ok",
        f"{sum(x.differ for x in group):,}",
        f"{sum(x.size for x in group):,}",
        ", ".join(dict.fromkeys(x.what.partition(" ")[0] for x in found)),
        ", ".join(dict.fromkeys(x.dtype for x in found)),
        "" if worst.note or worst.skipped else f"{worst.difference:.2g}",
        worst.theirs,
        worst.ours,
        "; ".join(filter(None, (worst.note, worst.input))) if wrong else "",
    )


def _groups(findings: Iterable[Finding], by: str) -> Iterator[list[Finding]]:
    """Those of one function, or of one process, in the order in which they first came."""
    groups: dict[str, list[Finding]] = {}
    for x in findings:
        groups.setdefault(getattr(x, by), []).append(x)
    yield from groups.values()
