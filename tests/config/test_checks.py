"""Every field of every part, with values that are nonsense: each is refused in one line, or can be built."""

import copy
import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from d3pm_jax import config as configs
from d3pm_jax.config import io as config_io
from d3pm_jax.config.checks import check_fields
from d3pm_jax.errors import UserError
from d3pm_jax.program.parts import build, network
from d3pm_jax.program.parts.completed import complete
from tests import tiny

pytestmark = pytest.mark.filterwarnings("ignore:x_T still depends")

BETA = configs.Linear(0.2, 1.0, rescale=False)
EXAMPLES = {
    "data": (
        configs.TfdsImages("mnist"),
        configs.Digits(),
        configs.Idx("folder"),
        configs.Arrays("a.npy", "b.npy", 5, "array", "y.npy", "z.npy", 3),
        configs.Text("a.txt", "b.txt", "c.txt"),
        configs.Shakespeare(),
        configs.Text8("folder"),
        configs.Enwik8("folder"),
        configs.StyledDigits(),
        configs.Table("a.csv", types=("a=real",), drop=("b",), rare=2),
        configs.UpsampledDigits(),
        configs.Mazes(4, 8, 8),
        configs.Plane("checkerboard", "plain", 8, 8),
    ),
    "process": (
        configs.Uniform(4, 5, BETA),
        configs.Absorbing(4, 5, BETA, 3),
        configs.Argmax(4),
        configs.Interpolating(4, 5, 3, 0.2, 1.5),
        configs.Autoregressive(4, 5, 3),
        configs.Gaussian(4, 5, BETA, 2),
        configs.Banded(4, 5, BETA, 2),
        configs.Marginal(5, BETA, (0.5, 0.5)),
        configs.Masked(configs.Uniform(3, 5, BETA), BETA),
        configs.ByPlace(configs.Uniform(3, 5, BETA), places=(2,)),
        configs.Dense("Q.npy", "prior.npy"),
        configs.RandomWalk("x.npy", 2, 5, BETA),
        configs.FromRate("x.npy", 2, 5, BETA),
        configs.Hierarchical((0.5, 2.0), 5, configs.LogLinear()),
        *(
            configs.Uniform(3, 5, beta)
            for beta in (
                BETA,
                configs.Cosine(),
                configs.CosineSquared(),
                configs.Reciprocal(),
                configs.LogLinear(),
                configs.Polynomial(),
                configs.MutualInformation((0.5, 0.3, 0.2)),
            )
        ),
    ),
    "model": (
        configs.UNet(ch=8, ch_mult=(1,), num_res_blocks=0, attn_resolutions=(8,), groups=4, classes=10),
        configs.ScoreNet(ch=8, ch_mult=(1,), num_res_blocks=0, attn=(0,), groups=4, classes=10),
        configs.Transformer(width=8, num_layers=1, num_heads=1, classes=10),
        configs.MLP(width=8, num_layers=1, classes=10),
        configs.ArgmaxCoupling(features=configs.LSTMFeatures(width=8)),
        configs.ArgmaxCoupling(features=configs.UNetFeatures(8, (1,), 0)),
        configs.ArgmaxAR(features=configs.TransformerFeatures(width=8)),
        configs.NoisyClassifier(width=8, num_layers=1, embedding=2),
    ),
    "head": (configs.Head(), configs.LogisticHead(), configs.ScoreHead()),
    "loss": (
        configs.HybridLoss(),
        configs.StochasticBound(),
        configs.ContinuousAbsorbing(),
        configs.ContinuousUniform(),
        configs.ScoreEntropy(),
        configs.GeneralizedKL(),
        configs.Blocks(),
        configs.AnyOrder(),
        configs.GIDD(0.2, 1.5, "clipped"),
        configs.LabelLoss(),
    ),
    "timesteps": (
        configs.LowDiscrepancy(),
        configs.Independent(),
        configs.Importance(),
        configs.RealTimes(2.0),
    ),
    "optimizer": (
        configs.Adam(),
        configs.AdamW(rate=configs.CosineRate(5)),
        configs.Adafactor(rate=configs.InverseSqrtRate(5)),
        configs.Lion(rate=configs.WSDRate(5, 2)),
        configs.Muon(),
    ),
    "train": (configs.Train(5),),
    "mesh": (configs.Mesh(),),
}
NEVER = {  # of no field
    "array": np.array([1.0, 2.0]),
    "scalar": np.float32(1.0),
    "integer of NumPy": np.int64(1),
    "list": [1],
    "dict": {},
    "nan": math.nan,
    "inf": math.inf,
    "tuple of nan": (math.nan,),
    "beyond float64": 10**400,
    "class": int,
    "NUL": "a\0b",
}
SOMETIMES = {  # "word" is a text where one is meant, and so on
    "word": "word",
    "empty": "",
    "import": "huggingface:mnist",
    "None": None,
    "True": True,
    "-1": -1,
    "-0.5": -0.5,
    "0": 0,
    "0.0": 0.0,
    "1": 1,
    "1.0": 1.0,
    "1.5": 1.5,
    "1e300": 1e300,
    "1e-300": 1e-300,
    "2**32": 2**32,
    "2**40": 2**40,
    "(0,)": (0,),
    "(-1.0,)": (-1.0,),
    "(2**40,)": (2**40,),
    "()": (),
    "('a',)": ("a",),
    "data": "data",
}
OF_THEIR_TYPE = (int, float, bool, str, tuple, type(None))


def put(part, name, value):
    """A copy with another value, unseen by what checks annotations in tests."""
    changed = copy.copy(part)
    object.__setattr__(changed, name, value)
    return changed


def fields(part, prefix):
    """(dotted name, a function value -> the part with it) of every field of a part and of the parts in it."""
    for field in dataclasses.fields(part):
        yield f"{prefix}.{field.name}", lambda value, name=field.name: put(part, name, value)
        inner = getattr(part, field.name)
        if dataclasses.is_dataclass(inner):
            for full, change in fields(inner, f"{prefix}.{field.name}"):
                yield (
                    full,
                    lambda value, name=field.name, change=change: put(part, name, change(value)),
                )


def every_field():
    for place, parts in EXAMPLES.items():
        for part in parts:
            for name, change in fields(part, place):
                yield place, name, change


def line_of(error):
    """What an error says, which must be one line."""
    assert str(error)
    assert "\n" not in str(error)
    return str(error)


def refusal(config):
    """What is said of a config, None if nothing."""
    try:
        config_io.check_config(config)
    except UserError as error:
        return line_of(error)
    return None


def said_of(place, part):
    """What the check of the fields of a part says, None if nothing: quicker than that of a whole config."""
    try:
        check_fields(place, part)
    except ValueError as error:
        return line_of(error)
    return None


def beside(part):
    """A config whose other parts go with this one."""
    config = tiny.get_config()
    if getattr(part, "real", False):
        return put(config, "loss", configs.ContinuousUniform())
    if isinstance(part, configs.ScoreHead):
        config = put(config, "loss", configs.ScoreEntropy())
    if isinstance(part, configs.ScoreEntropy):
        config = put(config, "head", configs.ScoreHead())
    of_real_times = ("Continuous", "ScoreEntropy", "GeneralizedKL", "Blocks", "AnyOrder", "GIDD")
    real = type(part).__name__.startswith(of_real_times)
    real = real or isinstance(config.loss, configs.ScoreEntropy)
    return put(config, "timesteps", configs.RealTimes()) if real else config


def test_real_times_and_objectives_in_continuous_time_go_together():
    config = tiny.get_config()
    for place, part, words in (
        ("timesteps", configs.RealTimes(), "HybridLoss needs whole steps: take LowDiscrepancy()"),
        (
            "loss",
            configs.ContinuousUniform(),
            "ContinuousUniform needs real times: set timesteps=RealTimes()",
        ),
    ):
        assert words in refusal(put(config, place, part))
    for beta in (configs.Cosine(), configs.Reciprocal(2.0), configs.LogLinear()):
        with pytest.raises(ValueError, match="has no form in continuous time: take Reciprocal"):
            beta.continuous()


def test_the_table_has_every_part_of_ours():
    parts = {type(part) for place in EXAMPLES.values() for part in place}
    parts |= {type(part.beta) for part in EXAMPLES["process"] if hasattr(part, "beta")}
    parts |= {type(part.features) for part in EXAMPLES["model"] if hasattr(part, "features")}
    parts |= {type(part.rate) for part in EXAMPLES["optimizer"] if hasattr(part, "rate")}
    named = [getattr(configs, name) for name in configs.__all__]
    known = {part for part in named if isinstance(part, type)}
    bases = {
        configs.Config,
        configs.Spec,
        configs.Terms,
        configs.Asked,
        *(x for x in known if x.__subclasses__()),
    }
    assert known - bases - parts == set()
    for place, parts in EXAMPLES.items():
        for part in parts:
            assert refusal(put(beside(part), place, part)) is None


def test_what_no_field_can_be_is_refused_by_name():
    count = 0
    for place, name, change in every_field():
        for value in NEVER.values():
            said = said_of(place, change(value))
            assert said is not None, (name, value)
            assert said.startswith(f"{name} = "), (said, name, value)
            assert ": it must be " in said
            count += 1
    assert count > 700


@functools.cache
def accepted():
    """(place, name, value, the part with it) of what is legal somewhere and accepted there."""
    legal = []
    for place, name, change in every_field():
        for text, value in SOMETIMES.items():
            said = said_of(place, change(value))
            assert said is None or said.startswith(f"{name} = "), said
            legal += [(place, name, text, change(value))] if said is None else []
    return legal


def test_what_a_field_accepts_is_of_its_type_and_in_its_range():
    values_by_name = {}
    for _, name, text, _ in accepted():
        values_by_name.setdefault(name, set()).add(text)
    assert values_by_name["train.seed"] == {"0", "1"}
    assert values_by_name["train.steps"] == values_by_name["train.batch_size"] == {"1"}
    assert values_by_name["train.noise"] == {"None", "word", "data", "import"}
    assert values_by_name["train.ema_decay"] == values_by_name["optimizer.b1"] == {"1e-300", "0.0", "0"}
    above = {"1", "1.0", "1.5", "1e300", "1e-300", "2**32", "2**40"}
    assert values_by_name["optimizer.clip"] == above
    assert values_by_name["model.attention_eps"] == {"None", "1", "1.0", "1e-300"}
    assert values_by_name["optimizer.lr"] == values_by_name["loss.ce_weight"] == above | {"0", "0.0"}
    assert values_by_name["optimizer.decay_steps"] == {"None", "1"}
    assert values_by_name["data.name"] == {"word", "data"}
    assert values_by_name["process.K"] == {"data"}
    assert values_by_name["process.mask_id"] == {"data", "None", "0", "1"}
    assert values_by_name["process.pi"] == {"data", "(0,)", "()"}
    assert values_by_name["head.residual"] == values_by_name["model.onehot_input"] == {"True"}
    assert "model.ch_mult" not in values_by_name
    assert values_by_name["model.attn_resolutions"] == {"()"}
    assert values_by_name["model.attn"] == {"()", "(0,)"}
    assert "loss.belief" not in values_by_name
    assert "process.inner" not in values_by_name


def files():
    rng = np.random.default_rng(0)
    np.save("Q.npy", rng.dirichlet(np.ones(3), (5, 3)))
    np.save("prior.npy", np.full(3, 1 / 3))
    np.save("x.npy", rng.normal(size=(4, 2)))


def test_what_is_accepted_builds_or_says_why(tmp_path, monkeypatch):
    """The parts that need no network: no traceback, one line; NaN in no table."""
    monkeypatch.chdir(tmp_path)
    files()
    built = 0
    failed = 0
    for place, name, value, part in accepted():
        if place not in ("process", "optimizer", "timesteps"):
            continue
        try:
            if place == "process":
                tables = jax.tree.leaves(part.build())
                assert not any(np.isnan(x).any() for x in tables), (name, value)
            else:
                _ = part.build() if place == "optimizer" else part.start(5)
            built += 1
        except jaxtyping.TypeCheckError:  # of annotations in tests: an int in place of a float
            assert type(SOMETIMES[value]) is int
        except (ValueError, MemoryError, UserError) as error:
            line_of(error)
            failed += 1
    print(f"{built} built, {failed} said why not")
    assert built > 60


@pytest.mark.slow
def test_networks_of_what_is_accepted_build_or_say_why(monkeypatch):
    """Of what a network does not read there is a table for a network: it reads which head it has, no more."""
    config = tiny.get_config()
    config = put(config, "model", dataclasses.replace(config.model, num_res_blocks=0))
    # A value that a field has already makes the same part as another field's: it is built once.
    part_by_text = {repr(part): (place, name, part) for place, name, _, part in accepted()}
    for place, name, part in part_by_text.values():
        if place not in ("model", "head", "loss", "train"):
            continue
        with monkeypatch.context() as patch:
            is_read = place == "model" or name == "train.remat" or part in EXAMPLES["head"]
            if not is_read:
                patch.setattr(network, "split_network", tiny.split)
            try:
                build.build(complete(put(config, place, part), tiny.DIGITS))
            except UserError as error:
                line_of(error)


@dataclasses.dataclass(frozen=True)
class Own(configs.Model):
    """A part with annotations that are understood, and one that is not."""

    width: int = 4
    sizes: tuple[int, int] = (1, 2)
    ratio: int | None = None
    other: object = None


@dataclasses.dataclass(frozen=True)
class Unknown(configs.Model):
    share: "float" = 0.5
    kind: "no_such_type" = "a"  # noqa: F821  # pyright: ignore[reportUndefinedVariable]


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (put(Own(), "width", 1.0), "model.width = 1.0: it must be a whole number"),
        (put(Own(), "width", True), "model.width = True: it must be a whole number"),
        (
            put(Own(), "sizes", (1,)),
            "model.sizes = (1,): it must be a tuple (a whole number, a whole number)",
        ),
        (put(Own(), "ratio", "3"), "model.ratio = '3': it must be a whole number or None"),
        (put(Own(), "other", (1.0, math.inf)), "model.other = (1.0, inf): it must be made of finite numbers"),
        (put(Unknown(), "share", math.nan), "model.share = nan: it must be made of finite numbers"),
        (put(Unknown(), "share", "text"), None),
        (Own(), None),
    ],
)
def test_parts_of_the_users_own_are_checked_as_far_as_they_are_understood(part, message):
    assert refusal(put(tiny.get_config(), "model", part)) == message


@pytest.mark.parametrize(
    ("value", "cure"),
    [
        (np.float64(0.1), ", of Python's own type: write float(...)"),
        (np.int64(1), ", of Python's own type: write int(...)"),
        (jnp.float32(0.1), ", of Python's own type: write float(...)"),
        (np.ones(2), ", not an array"),
    ],
)
def test_numbers_of_arrays_have_a_cure(value, cure):
    said = said_of("optimizer", put(configs.Adam(), "lr", value))
    assert said is not None
    assert said.endswith(f"it must be a finite number of at least 0{cure}")


@dataclasses.dataclass(frozen=True)
class Lost:
    """A part of the user's that derives from no part."""

    width: int = 16


def test_an_array_in_place_of_a_file_and_a_class_in_place_of_a_part_have_a_cure():
    said = said_of("data", put(configs.Arrays("a.npy", "b.npy", 5), "train", np.ones((2, 2))))
    assert said is not None
    assert said.endswith("one non-empty line, not an array: save it by numpy.save, and name the file")
    said = said_of("", put(tiny.get_config(), "data", np.ones((2, 2))))
    assert said is not None
    assert said.endswith(
        "a part, Data, not an array: save it by numpy.save, and name the file in Arrays(...)"
    )
    said = said_of("", put(tiny.get_config(), "optimizer", print))
    assert said is not None
    assert said.endswith(": take one of d3pm_jax.config, or a class of your own that derives from Optimizer")
    said = said_of("", put(tiny.get_config(), "model", configs.UNet))
    assert said is not None
    assert said.endswith("it must be a part, Model, not its class: write UNet(...)")
    said = said_of("", put(tiny.get_config(), "model", Lost()))
    assert said is not None
    assert said.endswith("it must be a part, Model: derive Lost from d3pm_jax.config.Model")
    said = said_of("", put(tiny.get_config(), "model", configs.Adam()))
    assert said is not None
    assert said.endswith("or a class of your own that derives from Model")
    said = said_of("head", put(configs.LogisticHead(), "input_range", np.ones(2)))
    assert said is not None
    assert said.endswith(", not an array: write tuple(x.tolist())")


@pytest.mark.parametrize("place", ["model", "head"])
@pytest.mark.parametrize("value", [(5, 5), (9, 1), (0.0, 1e-300), (-1e308, 1e308), (0,), [0, 1]])
def test_a_range_that_is_none_is_refused(place, value):
    part = {"model": configs.UNet(), "head": configs.LogisticHead()}[place]
    said = said_of(place, put(part, "input_range", value))
    assert said is not None
    assert said.startswith(f"{place}.input_range = ")
    assert said_of(place, put(part, "input_range", (0, 255.0))) is None


def test_none_is_said_to_be_allowed_where_it_is():
    said = said_of("train", put(configs.Train(5), "noise", ""))
    assert said == "train.noise = '': it must be a text of one non-empty line or None"


@pytest.mark.parametrize("text", ["mnist", "emnist/letters", "a/b-c.d:1.0.0", "cifar10_1:3.1.4"])
def test_names_of_data_sets(text):
    assert refusal(put(tiny.get_config(), "data", configs.TfdsImages(text))) is None


@pytest.mark.parametrize(
    "text",
    [
        "huggingface:mnist",
        "ns:a/b",
        "mnist/a/b=1",
        "../mnist",
        "/mnist",
        "a b",
        "mnist:1",
        "MNIST",
        "mnist\n",
        "é",
    ],
)
def test_names_that_could_import_something_are_refused(text):
    said = refusal(put(tiny.get_config(), "data", configs.TfdsImages(text)))
    assert said is not None
    assert said.startswith("data.name = ")
