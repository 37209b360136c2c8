"""Four-part chorales by a network that sees what comes before a note alone: it learns from each note at once.

    d3pm train configs/chorales_causal.py --data.file jsb16.npz --workdir runs/causal
    python benchmarks/exact_chorales.py chronological runs/causal --data jsb16.npz

Data, network and loss are those of chorales.py. Nothing is masked in training. Filled in from left to right,
soprano before bass, it has the likelihood that it is trained by; in any other order it knows nothing of what
comes after.
"""

from pathlib import Path

from d3pm_jax.config import Config, io

chorales = io.load_module(Path(__file__).with_name("chorales.py"))


def get_config() -> Config:
    return chorales.get_causal_config()
