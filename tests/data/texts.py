"""Texts on disk and their tokens, for the tests of data."""

from d3pm_jax.data import prepared


def write(folder, content, name="a.txt"):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def text_of(data, split):
    """All tokens of a split, as text."""
    description = data.describe()
    return description.text(prepared.prepare_corpus(data.corpus()).open(split).x)
