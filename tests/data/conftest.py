"""Fixtures of the tests of data."""

import pytest

from d3pm_jax.data import images as image_source, open_split, text


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A data directory that holds the prepared digits."""
    root = str(tmp_path_factory.mktemp("tfds"))
    open_split("digits", "train", root)
    return root


@pytest.fixture
def train(data_dir):
    return open_split("digits", "train", data_dir)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """No test may reach the network: a test that expects a question to it replaces this again."""
    monkeypatch.setattr(image_source, "_can_connect", lambda url: pytest.fail(f"asked the network for {url}"))


@pytest.fixture(autouse=True)
def cache(text_cache):
    """No test prepares texts in the folder of the user."""
    return text_cache


@pytest.fixture
def small_parts(monkeypatch):
    """Files are read three bytes at a time, and lines of more than five characters are cut."""
    monkeypatch.setattr(text, "PART", 3)
    monkeypatch.setattr(text, "LONGEST", 5)
