"""Tokenizers: symbols of parts of characters."""

import itertools

from d3pm_jax.data import tokenizers


def test_symbols_of_parts_of_characters_join_to_characters():
    x, _ = tokenizers.Bytes().encode(["é🎈"])
    symbols = [tokenizers.Bytes().symbols[k] for k in x]
    assert tokenizers.join_symbols(symbols) == "é🎈"
    assert tokenizers.join_symbols(symbols[1:]) == "\ufffd🎈"
    for cuts in itertools.combinations_with_replacement(range(7), 2):
        parts = [symbols[a:b] for a, b in itertools.pairwise([0, *cuts, 6])]
        assert "".join(tokenizers.join_symbol_parts(parts)) == "é🎈"
    assert [*tokenizers.join_symbol_parts([symbols[:3], ["a"], symbols[:1]])] == [
        "é",
        "\ufffda",
        "",
        "\ufffd",
    ]
