"""Says what a run may train, and what a config of each of these holds."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Trained:
    """Says what a run trains: a diffusion, a flow or a classifier of noised examples."""

    name: str
    """"diffusion", "flow" or "classifier\""""
    setting: str
    """of a config that trains it: "process = Argmax()\""""
    models: str
    """the specs that build its network"""
    unused_parts: tuple[str, ...]
    """parts of a config that it has no use for, and that stay as by default"""
    unused_train: Mapping[str, str]
    """fields of `Train` that stay as by default, each with what is wrong with another value of it"""
    whole_examples: bool
    """whether it takes examples alone: without weights of elements, and without conditions"""


ONLY_FOR_DIFFUSION = " is only for a diffusion: leave it out"
DIFFUSION = Trained("diffusion", "", "", (), {}, whole_examples=False)
FLOW = Trained(
    "flow",
    "process = Argmax()",
    "ArgmaxCoupling or ArgmaxAR",
    ("head", "loss", "timesteps"),
    {
        "remat": " does nothing in a flow: leave it out",
        "drop_condition": " drops labels and conditions, and a flow takes neither: leave it out",
        "noise": ONLY_FOR_DIFFUSION,
    },
    whole_examples=True,
)
CLASSIFIER = Trained(
    "classifier",
    "loss = LabelLoss()",
    "NoisyClassifier",
    ("head", "sampler"),
    {
        "drop_condition": " drops labels, but a classifier is trained to predict them: leave it out",
        "sample_every": ": a classifier draws no samples, leave it out",
        "noise": ONLY_FOR_DIFFUSION,
    },
    whole_examples=True,
)
