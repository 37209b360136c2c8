"""Commands under settings of JAX give what they give without them, or say in one line why not."""

import pytest

from tests import tiny
from tests.checks.settings import SETTINGS, find_outcome, find_outcomes

# What ends soon: a command that is refused before it computes.
QUICK = {"resume": ["JAX_ENABLE_X64"]}
# What decides the noise, which a run goes on with, and what may be read from a checkpoint to a device: else a
# resumed training is a training.
OF_RESUMING = (
    "JAX_ENABLE_X64",
    "JAX_DEFAULT_PRNG_IMPL",
    "JAX_THREEFRY_PARTITIONABLE",
    "JAX_RANDOM_SEED_OFFSET",
    "JAX_HIGH_DYNAMIC_RANGE_GUMBEL",
    "JAX_TRANSFER_GUARD",
    "JAX_TRANSFER_GUARD_HOST_TO_DEVICE",
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "settings", "same"),
    [("train", SETTINGS, 4), ("resume", OF_RESUMING, 1), ("sample", SETTINGS, 4)],
)
def test_no_setting_changes_a_result_silently_or_ends_in_a_traceback(command, settings, same, tmp_path):
    counts = find_outcomes(settings, [command], tmp_path)
    assert counts["SILENT"] == counts["UNCLEAR"] == 0
    assert counts["same"] >= same


def test_commands_that_cannot_run_under_a_setting_say_so_in_one_line(tmp_path):
    saved = tmp_path / "saved"
    tiny.write_run(saved, tiny.get_config())
    for command, settings in QUICK.items():
        for setting in settings:
            outcome, line = find_outcome(command, setting, tmp_path, saved, None)
            assert outcome == "clear", line
