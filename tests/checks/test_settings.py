"""Commands under settings of JAX give what they give without them, or say in one line why not."""

import pytest

from tests import tiny
from tests.checks.settings import SETTINGS, find_outcome, find_outcomes

# What ends soon: a command that is refused before it computes.
QUICK = {"resume": ["JAX_ENABLE_X64"]}


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "resume", "sample"])
def test_no_setting_changes_a_result_silently_or_ends_in_a_traceback(command, tmp_path):
    counts = find_outcomes(SETTINGS, [command], tmp_path)
    assert counts["SILENT"] == counts["UNCLEAR"] == 0
    assert counts["same"] >= 4


def test_commands_that_cannot_run_under_a_setting_say_so_in_one_line(tmp_path):
    saved = tmp_path / "saved"
    tiny.write_run(saved, tiny.get_config())
    for command, settings in QUICK.items():
        for setting in settings:
            outcome, line = find_outcome(command, setting, tmp_path, saved, None)
            assert outcome == "clear", line
