"""Fixtures of the tests of commands."""

import pytest

from tests.cli.commands import status, train_args


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Where data sets are prepared, once for all files: not in the user's folder."""
    return str(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data_dir):
    """A finished run of 20 steps without interruption."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    assert status(*train_args(workdir, data_dir)) == 0
    return workdir
