"""Fixtures of the tests of commands."""

import pytest


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Where data sets are prepared: not in the user's folder."""
    return str(tmp_path_factory.mktemp("data"))
