"""Tables as text."""


def layout(table: list[tuple[str, ...]], markdown: bool) -> str:
    """The table in columns, or in Markdown."""
    if markdown:
        lines = [" | ".join(cells) for cells in table]
        return "\n".join([lines[0], " | ".join(["---"] * len(table[0])), *lines[1:]])
    widths = [max(len(cells[i]) for cells in table) for i in range(len(table[0]))]
    return "\n".join("  ".join(map(str.ljust, cells, widths)).rstrip() for cells in table)
