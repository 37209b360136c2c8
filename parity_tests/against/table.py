"""What came of the comparisons, as one table and a few sentences."""

from collections.abc import Iterable, Iterator, Sequence

from parity_tests.against.comparing import Finding

HEAD = ("function", "process", "", "differ", "of", "in", "type", "difference", "yours", "JAX", "input")


def rows(findings: Sequence[Finding], every: bool) -> list[tuple[str, ...]]:
    """A line for what agrees of a function and one for each process where it does not; `every`: for each call."""
    if every:
        return [HEAD, *(_line([x], x.process) for x in findings)]
    lines = [HEAD]
    for of_function in _groups(findings, ("function",)):
        groups = list(_groups(of_function, ("process",)))
        good = [group for group in groups if not _bad(group) and not _skipped(group)]
        skipped = [group for group in groups if _skipped(group)]
        if good:
            named = [group[0].process for group in good]
            processes = f"all {len(good)}" if len(good) == len(groups) > 1 else ", ".join(named)
            lines.append(_line([x for group in good for x in group], processes))
        lines += [_line(group, group[0].process) for group in groups if _bad(group)]
        if skipped:
            lines.append(_line(skipped[0], ", ".join(group[0].process for group in skipped)))
    return lines


def sentences(findings: Sequence[Finding]) -> list[str]:
    """What the differences are, as far as it was tested, and how many functions differ."""
    lines = []
    for group in _groups(findings, ("function",)):
        told: dict[str, list[str]] = {}
        for of_process in _groups(_bad(group), ("process",)):
            for hint in _hints(of_process):
                told.setdefault(hint, []).append(of_process[0].process)
        lines += [f"{group[0].function}: {hint} ({_names(where)})" for hint, where in told.items()]
    names = dict.fromkeys(x.function for x in findings)
    wrong = dict.fromkeys(x.function for x in _bad(findings))
    total = sum(x.size for x in findings)
    end = f"{len(wrong)} of {len(names)} functions differ: {', '.join(wrong)}" if wrong else _all(len(names))
    return [*lines, *([""] if lines else []), f"{total:,} numbers compared, {end}"]


def _all(count: int) -> str:
    return "the function agrees" if count == 1 else f"all {count} functions agree"


def _names(processes: list[str]) -> str:
    return ", ".join(filter(None, processes)) or "everywhere"


def _hints(findings: Iterable[Finding]) -> list[str]:
    """Those that hold of every value that differs, in the first float type that does."""
    values = [x for x in findings if x.what == "value" and x.count]
    values = [x for x in values if x.dtype == values[0].dtype]
    return [hint for hint in (values[0].hints if values else ()) if all(hint in x.hints for x in values)]


def _line(group: Sequence[Finding], processes: str) -> tuple[str, ...]:
    """One line for comparisons; where some differ, the numbers are of the worst in the first float type."""
    bad = _bad(group)
    found = bad or list(group)
    some = [x for x in found if x.dtype == found[0].dtype and x.what == found[0].what] if bad else found
    worst = next((x for x in some if x.note), None) or max(some, key=lambda x: x.difference)
    whats = dict.fromkeys(x.what.partition(" ")[0] for x in found if not x.skipped)
    return (
        worst.function,
        processes,
        "skipped" if _skipped(group) else "DIFFERS" if bad else "ok",
        str(sum(x.count for x in group)),
        f"{sum(x.size for x in group):,}",
        ", ".join(whats),
        ", ".join(dict.fromkeys(x.dtype for x in found)),
        "" if worst.note or worst.skipped else f"{worst.difference:.2g}",
        worst.theirs,
        worst.ours,
        "; ".join(filter(None, (worst.note, worst.input))) if bad else "",
    )


def _bad(findings: Iterable[Finding]) -> list[Finding]:
    return [x for x in findings if not x.ok]


def _skipped(group: Iterable[Finding]) -> bool:
    return all(x.skipped for x in group)


def _groups(findings: Iterable[Finding], by: tuple[str, ...]) -> Iterator[list[Finding]]:
    """Those of one function, or of one process, in the order in which they first came."""
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for x in findings:
        groups.setdefault(tuple(getattr(x, name) for name in by), []).append(x)
    yield from groups.values()
