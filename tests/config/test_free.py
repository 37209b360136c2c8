"""Which fields may change when a run is resumed, as the fields themselves say."""

import dataclasses
from typing import Annotated, ClassVar

import pytest

from d3pm_jax import config as configs
from d3pm_jax.cli import reading as overrides
from d3pm_jax.config.checks import (
    Count,
    Free,
    NotNegative,
    describe_hint,
    free_fields,
    hints_of,
    matches_hint,
)
from d3pm_jax.errors import UserError
from d3pm_jax.program.storage.run_folder import check_resume, may_change
from tests import tiny

SHIPPED = [x for x in map(configs.__dict__.get, configs.__all__) if dataclasses.is_dataclass(x)]
RATED = {"lr", "rate"}
OF_ATTENTION = ("ScoreNet", "Transformer", "TransformerFeatures", "UNet", "UNetFeatures")
FREE = {
    "Adafactor": RATED,
    "Adam": {"lr", "decay_steps"},
    "AdamW": RATED,
    "Arrays": {
        *{"train", "train_labels", "train_conditions"},
        *{"test", "test_labels", "test_conditions"},
        *{"valid", "valid_labels", "valid_conditions"},
    },
    "Config": {"sampler"},
    "Digits": {"dir", "valid_split"},
    "Enwik8": {"dir"},
    "Head": {"projected"},
    "Idx": {"dir"},
    "Lion": RATED,
    "LogisticHead": {"projected"},
    "Mesh": {"fsdp", "heartbeat", "peak_flops"},
    "Muon": RATED,
    "RatedOptimizer": RATED,
    "ScoreHead": {"projected"},
    "StyledDigits": {"dir"},
    "Table": {"path", "test"},
    "Text": {"train", "test", "valid", "tokenizer"},
    "Text8": {"dir"},
    "TfdsImages": {"dir", "valid_split"},
    "Train": {
        "accumulate",
        "checkpoint_every",
        "eval_every",
        "keep_checkpoints",
        "log_every",
        "max_nonfinite",
        "noise",
        "remat",
        "sample_every",
        "steps",
    },
    "UpsampledDigits": {"dir"},
    **{name: {"attention"} for name in OF_ATTENTION},
}


@dataclasses.dataclass(frozen=True)
class Inherits(configs.AdamW):
    lr: NotNegative = 0.5
    momentum: Annotated[float, Free] = 0.9


@dataclasses.dataclass(frozen=True)
class SetsItsOwn(configs.AdamW):
    may_change: ClassVar[tuple[str, ...]] = ("b1",)


@dataclasses.dataclass(frozen=True)
class InheritsThat(SetsItsOwn):
    b2: Annotated[float, Free] = 0.9


@dataclasses.dataclass(frozen=True)
class Elsewhere(configs.Digits):
    places = ("name",)


def test_free_fields_of_the_shipped_classes():
    assert {cls.__name__: set(free_fields(cls)) for cls in SHIPPED if free_fields(cls)} == FREE
    for cls in SHIPPED:
        if issubclass(cls, configs.Data):
            assert set(cls.places) == FREE.get(cls.__name__, set())
        if issubclass(cls, configs.Optimizer):
            assert set(cls.may_change) == FREE.get(cls.__name__, set())


def test_a_class_of_ones_own_is_believed_over_what_it_inherits():
    assert set(Inherits.may_change) == {"lr", "rate", "momentum"}
    assert SetsItsOwn.may_change == InheritsThat.may_change == ("b1",)
    assert Elsewhere.places == ("name",)
    config = dataclasses.replace(tiny.get_config(), data=Elsewhere(), optimizer=SetsItsOwn())
    expected = {f"train.{name}" for name in FREE["Train"]} | {f"mesh.{name}" for name in FREE["Mesh"]}
    assert may_change(config) == expected | {
        "data.name",
        "head.projected",
        "model.attention",
        "optimizer.b1",
        "sampler",
    }
    check_resume(config, dataclasses.replace(config, optimizer=SetsItsOwn(b1=0.5)))
    with pytest.raises(UserError, match=r"optimizer.lr was 0.0002, is 0.5"):
        check_resume(config, dataclasses.replace(config, optimizer=SetsItsOwn(lr=0.5)))


@dataclasses.dataclass(frozen=True)
class Unclear(configs.Adam):
    width: "Nowhere" = 3  # noqa: F821
    share: "Nowhere" = 0.5  # noqa: F821


def test_fields_whose_annotations_cannot_be_evaluated_are_of_the_type_that_they_have():
    base = dataclasses.replace(tiny.get_config(), optimizer=Unclear())
    words = ["--optimizer.width", "4", "--optimizer.share=1"]
    config = overrides.apply_overrides(base, words, "")
    assert (config.optimizer.width, config.optimizer.share) == (4, 1.0)
    with pytest.raises(UserError, match=r"--optimizer.width: expected a whole number, got '0.5'"):
        overrides.apply_overrides(base, ["--optimizer.width", "0.5"], "")


def test_the_mark_is_nothing_else():
    marked = Annotated[Count, Free]
    assert matches_hint(1, marked)
    assert not matches_hint(0, marked)
    assert describe_hint(marked) == describe_hint(Count)
    hints = hints_of(configs.Train)
    assert hints["steps"] == Count
    assert hints["remat"] is bool
    base = tiny.get_config()
    assert overrides.apply_overrides(base, ["--train.remat"], "").train.remat
    assert not overrides.apply_overrides(base, ["--train.no-remat"], "").train.remat
    with pytest.raises(UserError, match=r"--train.remat takes no value: write --train.remat or --train.no-"):
        overrides.apply_overrides(base, ["--train.remat", "True"], "")
