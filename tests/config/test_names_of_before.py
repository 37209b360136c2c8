"""A run holds the file of a user's own parts to its hash, so the names that it imports stay."""

from importlib import import_module

import pytest

NAMES = {
    "config.checks": {
        "Part": "CheckedPart",
        "Range": "Interval",
        "at_least": "integers_from",
        "fits": "matches_hint",
        "in_words": "describe_hint",
        "undefined": "undefined_method",
    },
    "config.data": {"standard_file": "find_standard_file"},
    "config.from_data": {"known": "filled_field", "like": "fill_from_saved"},
    "config.io": {
        "check": "check_config",
        "dump": "dump_config",
        "flat": "flatten_config",
        "from_file": "read_config_file",
        "load": "load_module",
    },
    "data.binarize": {"at_random": "draw_binary"},
    "data.prepared": {"Tokens": "SplitTokens", "prepare": "prepare_corpus"},
    "data.text": {
        "Part": "TextPart",
        "files": "list_files",
        "lines": "split_lines",
        "parts": "read_parts",
        "sha256": "hash_text",
    },
    "data.tokenizers": {
        "FromFile": "FileTokenizer",
        "joined": "join_symbols",
        "joined_parts": "join_symbol_parts",
        "matched": "match_symbols",
    },
    "kinds": {"Array": "ArrayKind", "Image": "ImageKind", "Text": "TextKind", "of": "make_kind"},
    "kinds.blocks": {"Text": "TextBlock"},
    "loop.metrics": {"read": "read_metrics"},
    "machine.cluster": {"join": "join_processes"},
    "measure.sample_quality": {
        "differing": "list_differences",
        "read": "read_figures",
        "table": "format_table",
        "write": "write_figures",
    },
    "models.backbone": {"Level": "Stage"},
    "models.transformer": {"rotated": "rotate_pairs"},
    "storage.checkpoint": {"save": "save_checkpoint", "steps": "list_steps"},
}


@pytest.mark.parametrize("module", NAMES)
def test_a_file_of_a_user_may_import_the_names_of_before(module):
    content = import_module(f"d3pm_jax.{module}")
    for before, now in NAMES[module].items():
        assert getattr(content, before) is getattr(content, now), before
