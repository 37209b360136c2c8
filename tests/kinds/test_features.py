"""Where the classifier of samples is kept."""

from pathlib import Path

import pytest

from d3pm_jax.kinds import features


@pytest.mark.parametrize(
    ("name", "parent"), [("/tmp/mine", "/tmp/mine"), ("", "~/.cache"), ("mine", "~/.cache")]
)
def test_the_cache_is_the_folder_of_the_user_or_that_of_the_system(name, parent, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", name)
    assert features.cache_folder() == Path(parent).expanduser() / "d3pm_jax"
