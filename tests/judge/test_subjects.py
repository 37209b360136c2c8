"""What a function of another library is given is exact, and what it gives back is checked."""

import re

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from d3pm_jax import judge, oracles
from d3pm_jax.errors import UserError
from d3pm_jax.judge import subjects, targets
from d3pm_jax.judge.subjects import Denoise
from d3pm_jax.sampling import named

K, L = 3, 3


@pytest.fixture(scope="module")
def known():
    """A chain of 3 categories and 3 places by noise, and its law."""
    weights = np.exp(np.random.default_rng(0).normal(size=(K, K)))
    oracle = targets.stationary_chain(weights, L)
    return {noise: targets.known_target(oracle, noise) for noise in ("mask", "uniform")}


def enumerate_belief(law, x, alpha, noise, leave_out):
    """p(x_0 at each place | x), [L, K], by the sum over all states; or given the other places alone."""
    belief = np.zeros((L, K))
    for state in np.ndindex(law.shape):
        for place in range(L):
            p = law[state]
            for other in range(L):
                if other == place and leave_out:
                    continue
                if noise == "mask":
                    p *= x[other] in (K, state[other])
                else:
                    p *= alpha * (x[other] == state[other]) + (1 - alpha) / K
            belief[place, state[place]] += p
    return belief / belief.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("noise", ["mask", "uniform"])
def test_what_a_function_asks_is_answered_exactly(noise, known):
    target = known[noise]
    law = target.law.reshape(K, K, K)
    x = np.array([[2, 0, 1], [1, 1, 2]]) if noise == "uniform" else np.array([[3, 0, 3], [3, 3, 3]])
    alpha = np.array([0.7, 0.2])
    denoise = Denoise(target)
    answers = [np.exp(ask(x, alpha)) for ask in (denoise, denoise.leave_one_out, denoise.log_scores)]
    assert all(answer.dtype == np.float32 for answer in answers)
    denoised, loo, scores = answers
    for i in range(2):
        args = (law, x[i], alpha[i], noise)
        np.testing.assert_allclose(denoised[i], enumerate_belief(*args, False), atol=2e-6)
        others = enumerate_belief(*args, True)
        np.testing.assert_allclose(loo[i], others, atol=2e-6)
        # p_t of what a place may be: noised x_0, given the other places.
        noised = alpha[i] * others + (1 - alpha[i]) / K
        if noise == "mask":
            masked = np.full((L, 1), 1 - alpha[i])
            data = np.where((x[i] < K)[:, None] & (np.arange(K) != x[i][:, None]), 0.0, alpha[i] * others)
            noised = np.concatenate([data, masked], axis=1)
        ratios = noised / noised[np.arange(L), x[i]][:, None]
        np.testing.assert_allclose(scores[i], ratios, rtol=1e-5, atol=1e-6)
    assert denoise.calls == 3


def test_the_answer_is_of_the_library_of_x(known):
    x = np.full((2, L), K)
    denoise = Denoise(known["mask"])
    in_numpy = denoise(x, 0.0)
    assert type(in_numpy) is np.ndarray
    in_jax = denoise(jnp.asarray(x), jnp.zeros(2))
    assert isinstance(in_jax, jax.Array)
    # In a program that JAX compiles nothing is checked, and calls are not counted.
    compiled = jax.jit(lambda x: denoise(x, 0.0))(jnp.asarray(x))
    np.testing.assert_allclose(in_numpy, in_jax)
    np.testing.assert_allclose(in_numpy, compiled, rtol=1e-6)
    assert denoise.calls is None


def fill(value):
    return lambda denoise, K, L, n, seed, calls: np.full((n, L), value)


def ask(x, alpha):
    def sample(denoise, K, L, n, seed, calls):
        return denoise(x, alpha)

    return sample


def fail(denoise, K, L, n, seed, calls):
    raise RuntimeError("mat1 and mat2\nshapes cannot be multiplied")


MASKS = np.full((2, L), K)
REFUSED = {
    "floats": (fill(0.0), r"returned float64 \[6, 3\]: return integers"),
    "masks": (fill(K), r"left 18 places at the mask, 3, in 6 samples: draw these too"),
    "category": (fill(4), r"returned the category 4: categories are 0\.\.2"),
    "length": (
        lambda *a: np.zeros((6, 5), int),
        r"returned int64 \[6, 5\], asked for n = 6, L = 3: return \[6, 3\]",
    ),
    "count": (lambda *a: np.zeros((5, L), int), r"returned int64 \[5, 3\], asked for n = 6"),
    "none": (lambda *a: None, r"what it returned is None: pass an array"),
    "ragged": (lambda *a: [[1], [1, 2]], r"what it returned is .*, no array"),
    "raises": (fail, r"raised RuntimeError: mat1 and mat2 shapes .*n = 6, seed = 0, calls = 4"),
    "x out of range": (ask(MASKS + 1, 0.5), r"x holds 4: categories are 0\.\.2, and 3 for the mask"),
    "x of floats": (ask(MASKS + 0.5, 0.5), r"x is float64 \[2, 3\]: pass integers \[n, 3\]"),
    "x of another length": (ask(MASKS[:, :2], 0.5), r"x is int64 \[2, 2\]: pass integers \[n, 3\]"),
    "alpha": (ask(MASKS, 1.5), r"alpha = 1\.5 is outside \[0, 1\]: it is the signal left"),
    "alpha is no number": (ask(MASKS, float("nan")), r"alpha = nan is outside \[0, 1\]"),
    "alpha is a word": (ask(MASKS, "a"), r"alpha is str: pass an array of numbers"),
    "alpha of a shape": (ask(MASKS, np.zeros(3)), r"alpha has shape \[3\]: pass a number, or \[2\]"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_named_in_one_line(case, known):
    function, message = REFUSED[case]
    subject = judge.function_subject("mine", function)
    with pytest.raises(UserError, match=message) as refused:
        subject.draw(known["mask"], 6, 0, 4)
    assert "\n" not in str(refused.value)


class NoPytree(oracles.Oracle):
    K = 2
    length = 2

    def draw(self, key, num):
        return jnp.zeros((num, 2), jnp.int32)

    def log_prob(self, x):
        return jnp.zeros(len(x))

    def leave_one_out(self, log_evidence):
        return log_evidence


def test_what_is_no_subject_law_or_protocol_is_refused(monkeypatch):
    """Each in one line, before anything is drawn; annotations are not checked here, as users call it."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    chain = targets.random_chain(4)
    cases = [
        ((None, chain), "subject = None: pass sampler_subject"),
        ((named.random_order(), chain), r"subject = Sampler\(.*: pass sampler_subject"),
        (("random_order", "chain"), r"target = 'chain': pass one of .* read_target\('chain'\)"),
        (("random_order", None), "target = None: pass one of"),
        (("random_order", np.zeros(2)), "target = array"),
        (("random_order", NoPytree()), "NoPytree is no pytree.*register_dataclass"),
        (("random_order:rows=3", chain), "has no such field"),
        (("random_order", chain, 4), "protocol = 4: pass a judge.Protocol"),
        (("repaint:passes=2", "network"), "passes = 2 cannot be enumerated"),
    ]
    fields = [
        ({"calls": 4}, "calls = 4: it must be"),
        ({"calls": ()}, "name at least one"),
        ({"calls": (0,)}, r"calls = \(0,\): it must be"),
        ({"calls": (4.5,)}, r"calls = \(4.5,\): it must be"),
        ({"num": "3000"}, "num = '3000': it must be"),
        ({"num": 20}, "num = 20: draw at least 30 samples"),
        ({"batches": None}, "batches = None: it must be"),
        ({"batches": 20}, "errors need at least 30 calls"),
        ({"seed": -1}, "seed = -1: it must be"),
        ({"level": "x"}, "level = 'x': it must be"),
        ({"level": 1}, "level = 1: it must be below 1"),
        ({"level": float("nan")}, "level = nan: it must be"),
    ]
    cases += [(("random_order", chain, judge.Protocol(**field)), said) for field, said in fields]
    for arguments, said in cases:
        with pytest.raises(UserError, match=said) as refused:
            judge.judge(*arguments)
        assert "\n" not in str(refused.value)


def test_log_p_of_a_sample_is_the_same_whatever_it_is_scored_with():
    """So that samples of a law with ties are as often above a threshold in every batch."""
    step = np.stack([np.roll([0.1, 0.2, 0.3, 0.4], i) for i in range(4)])
    target = targets.known_target(oracles.markov_chain(np.full(4, 0.25), step, 64), "mask")
    x = np.random.default_rng(0).integers(0, 4, (600, 64))
    together = target.log_prob(x)
    for size in (1, 7, 100, 300):
        np.testing.assert_array_equal(target.log_prob(x[-size:]), together[-size:])
    assert target.log_prob(x[:0]).shape == (0,)
    exact = np.log(0.25) + np.log(step[x[:, :-1], x[:, 1:]]).sum(axis=1)
    np.testing.assert_allclose(together, exact, rtol=1e-6)


def test_words_that_name_nothing_are_refused(tmp_path):
    """Each in one line, with the cure."""
    file = tmp_path / "mine.py"
    file.write_text("noise = 'gauss'\nother = 3\ndef sample(denoise, K, L, n, seed, calls):\n    return 0\n")
    empty = tmp_path / "empty.py"
    empty.write_text("")
    claims = tmp_path / "claims.py"
    claims.write_text("claims = 3\ndef sample(denoise, K, L, n, seed, calls):\n    return 0\n")
    commas = tmp_path / "commas"
    commas.write_text("a b,c")
    broken = tmp_path / "broken.py"
    broken.write_text("1 / 0")
    cases = {
        "maskgitt": "there is none of this name; did you mean maskgit",
        "maskgit:rows": "write fields as NAME:field=value",
        "maskgit:colour=3": "has no such field; it has rows",
        "maskgit:rows=x": "it must be a whole number",
        str(tmp_path / "none.py"): "there is no such file",
        str(empty): "has no function sample: define sample\\(denoise, K, L, n, seed, calls\\)",
        f"{file}:other": "has no function other",
        str(file): "noise = 'gauss': it must be 'mask' or 'uniform'",
        str(claims): "claims = 3: write NAME",
        str(broken): "failed: ZeroDivisionError",
    }
    for text, message in cases.items():
        with pytest.raises(UserError, match=message) as refused:
            judge.read_subject(text)
        assert "\n" not in str(refused.value)
    for name, message in {
        "cahin": "it must be chain, bigrams, network",
        "bigrams": "bigrams with a text",
    }.items():
        with pytest.raises(UserError, match=message):
            judge.read_target(name)
    with pytest.raises(UserError, match="no such file"):
        judge.read_target("bigrams", text=tmp_path / "no.txt")
    with pytest.raises(UserError, match=r"byte 3 is b',': it must be of a-z"):
        judge.read_target("bigrams", text=commas)
    with pytest.raises(UserError, match=re.escape("target = None: define one of d3pm_jax.oracles")):
        judge.read_target(str(empty))


def test_a_named_sampler_takes_the_calls_that_it_is_given():
    """The process has as many steps, a count of rows as many rows, a corrector fewer steps."""
    sizes = (3, 4)
    steps = {
        text: subjects.fit_steps(subjects.resolve(judge.read_subject(text).claim, 9), "mask", sizes, 9)
        for text in ("ancestral", "gibbs", "blocks:block=2")
    }
    assert steps == {"ancestral": 9, "gibbs": 5, "blocks:block=2": 4}
    assert judge.read_subject("maskgit").claim(9).step.count.rows == 9
    follows = {
        name: judge.read_subject(name).follows_calls for name in ("maskgit", "random_order", "ancestral")
    }
    assert follows == {"maskgit": True, "random_order": False, "ancestral": True}
    assert not judge.read_subject("maskgit:rows=3").follows_calls
