"""Compiled programs are kept for the next process, which gets the same bits."""

import hashlib
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from d3pm_jax.program.machine import cache
from tests.forked import Fork


def print_hash():
    """Prints the folder of the cache, a hash of what a program computes, and whether anything was loaded."""
    cache.keep_programs()
    print(jax.config.jax_compilation_cache_dir)
    hits = []
    jax.monitoring.register_event_listener(lambda name, **_: hits.append(name.endswith("/cache_hits")))

    @jax.jit
    def f(x):
        x, _ = jax.lax.scan(lambda x, _: (jnp.tanh(jnp.sin(x) @ jax.nn.softmax(x)), None), x, length=20)
        return jnp.sort(x.cumsum(0), axis=1), x.sum()

    x = jax.random.normal(jax.random.key(0), (128, 128))
    gradient = jax.grad(lambda x: sum(y.sum() for y in f(x)))(x)
    print(hashlib.sha256(gradient.tobytes()).hexdigest(), sum(hits) > 0)


def ran(folder, **variables):
    """What a process of users prints: the folder of the cache, a hash, whether it loaded anything."""
    defaults = {"XDG_CACHE_HOME": str(folder), "HOME": str(folder), "JAX_PLATFORMS": "cpu"}
    defaults["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = 0
    process = Fork(folder, print_hash, as_users=True, **(defaults | variables))
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    return output.split()


@pytest.mark.slow
def test_the_next_process_takes_them_to_the_same_bits(tmp_path):
    folder, fresh, loaded = ran(tmp_path)
    assert Path(folder).parent == tmp_path / "d3pm_jax" / "programs"
    assert loaded == "False"
    assert ran(tmp_path) == [folder, fresh, "True"]
    programs = sorted(Path(folder).glob("*-cache"))
    for file in programs:  # written in part, by processes that were killed
        file.write_bytes(file.read_bytes()[:-50])
        file.with_name(file.name.replace("-cache", "-atime")).unlink()
    assert ran(tmp_path) == [folder, fresh, "False"]
    assert ran(tmp_path) == [folder, fresh, "True"]
    for file in programs:  # damaged otherwise
        file.write_bytes(file.read_bytes()[:-50])
    assert ran(tmp_path)[1] == fresh


@pytest.mark.slow
def test_without_a_largest_size_they_are_kept_too(tmp_path):
    unlimited = {"JAX_COMPILATION_CACHE_MAX_SIZE": -1}
    folder, fresh, _ = ran(tmp_path, **unlimited)
    assert ran(tmp_path, **unlimited) == [folder, fresh, "True"]
    assert not list(Path(folder).glob("*-atime"))


@pytest.mark.slow
def test_what_the_user_says_counts(tmp_path):
    user_folder = str(tmp_path / "own")
    fresh = ran(tmp_path, JAX_COMPILATION_CACHE_DIR=user_folder)
    assert fresh[0] == user_folder
    assert ran(tmp_path, JAX_ENABLE_COMPILATION_CACHE=False) == ["None", *fresh[1:]]
    assert not (tmp_path / "d3pm_jax").exists()
    (tmp_path / "d3pm_jax").write_text("no folder can be made here")
    assert ran(tmp_path) == ["None", *fresh[1:]]


def test_nothing_replaces_the_folder_of_these_tests(monkeypatch):
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *name: pytest.fail("it is asked for"))
    before = jax.config.jax_compilation_cache_dir
    cache.keep_programs()
    assert jax.config.jax_compilation_cache_dir == before


def test_another_processor_has_another_folder(monkeypatch):
    here = cache._name_machine()
    names = []
    for name, flags, clock in (("A", "avx2", 1), ("A", "avx512f", 1), ("B", "avx2", 1), ("A", "avx2", 2)):
        cpuinfo = f"model name\t: {name}\nflags\t\t: {flags}\ncpu MHz\t\t: {clock}\n\nprocessor\t: 1\n"
        monkeypatch.setattr(Path, "read_text", lambda path, cpuinfo=cpuinfo: cpuinfo)
        names.append(cache._name_machine())
    assert len({here, *names}) == 4
    assert names[0] == names[3]
