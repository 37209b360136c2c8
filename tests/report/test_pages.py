"""Configs of several runs beside each other."""

from itertools import permutations
from pathlib import Path

from d3pm_jax.config import io as config_io
from d3pm_jax.report import pages as shown
from tests.report.reading import Page
from tests.report.records import Known, record


def test_fields_are_the_same_where_they_are():
    """Of every ordered pair of the configs here: a field that one lacks differs, also where it is None."""
    paths = sorted(Path("configs").glob("*.py"))
    configs = {path.stem: config_io.read_config_file(path) for path in paths}
    assert len(configs) > 9
    for a, b in permutations(map(shown.flatten_config, configs.values()), 2):
        differ, others = shown.compare_configs([a, b])
        same = {name for name in a.keys() & b.keys() if a[name] == b[name]}
        assert {*others} == same
        assert {*differ} == (a.keys() | b.keys()) - same
    pair = [record(x, Known(config=configs[x])) for x in ("bin_mnist_absorbing", "bin_mnist_uniform")]
    for records in (pair, pair[::-1]):  # a field of the first is None, and the second has none of that name
        page = Page(shown.tabulate_configs(records))
        at = page.inside["th"].index("model.channels_per_group")
        assert at < page.inside["th"].index("value")  # among those that differ
