"""Keys are of one kind under all settings, and a key of another kind draws the same in any batch."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import d3pm_jax
from d3pm_jax.keys import convert_key, make_key
from d3pm_jax.sampling import per_example

ROW = jnp.asarray(1, jnp.int32)


def test_a_seed_gives_one_key_under_all_settings():
    published = jax.random.key_data(jax.random.key(3, impl="threefry2x32"))
    for kind in ("threefry2x32", "rbg", "unsafe_rbg"):
        with jax.default_prng_impl(kind):
            np.testing.assert_array_equal(jax.random.key_data(make_key(3)), published)


def test_the_library_makes_keys_in_one_place():
    library = Path(d3pm_jax.__file__).parent
    for path in sorted(library.rglob("*.py")):
        # Of a call, not of a message or docstring that tells a user how to make one.
        calls = re.findall(r"(?<!pass )jax\.random\.(?:key|PRNGKey)\((?!0\), 64|0\)\")", path.read_text())
        expected = {"keys.py": 1, "checks/annotations.py": 0}.get(str(path.relative_to(library)), 0)
        assert len(calls) == expected, path


@pytest.mark.parametrize("kind", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_noise_of_an_example_depends_on_no_other_under_any_key(kind):
    key = jax.random.key(3, impl=kind)
    together = per_example(key, jnp.arange(4), (3,))(ROW)
    for i in range(4):
        np.testing.assert_array_equal(per_example(key, jnp.asarray([i]), (3,))(ROW)[0], together[i])
    assert len(np.unique(together)) == together.size
    # A second use of the key is no reuse, which the settings of these tests would refuse.
    assert jax.random.key_impl(convert_key(key)) == "threefry2x32"
