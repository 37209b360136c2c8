"""The samplers of the cases: the named ones, and other slots."""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

# Options that show at T = 7 on examples of four places. The other named samplers have their defaults.
OPTIONS: dict[str, dict[str, Any]] = {
    "ddim": {"c": 0.4},
    "psi": {"kappa": 0.6},
    "remdm_cap": {"eta": 0.3},
    "remdm_rescale": {"eta": 0.6},
    "remdm_loop": {"rows": 12},
    "maskgit": {"rows": 3},
    "fast_dllm_threshold": {"threshold": 0.5},
    "fast_dllm_factor": {"factor": 1.5},
    "entropy_bound": {"bound": 0.6},
    "blocks": {"block": 2},
    "predictor_corrector": {"moves": 2, "h": 0.3},
    "gibbs": {"moves": 2},
    "repaint": {"passes": 2},
}


def _shaped(lib: ModuleType, module: Callable[[str], ModuleType]) -> Any:
    shaping = lib.sampling.Shaping(temperature=0.8, forbid=(1,), top_k=4, top_p=0.95, top_p_below=0.9)
    return lib.sampling.Sampler(shaping=shaping)


def _by_schedule(lib: ModuleType, module: Callable[[str], ModuleType]) -> Any:
    schedule = lib.schedules.continuous.cosine
    return lib.sampling.Sampler(reveal=module("places").FirstHitting(schedule=schedule))


def _likeliest_in_blocks(lib: ModuleType, module: Callable[[str], ModuleType]) -> Any:
    places = module("places")
    return lib.sampling.Sampler(reveal=places.Reveal(places.LargestProbability(), places.One()), block=2)


def _euler_and_correct(lib: ModuleType, module: Callable[[str], ModuleType]) -> Any:
    corrector = module("correctors").RateCorrector(h=0.2)
    return lib.sampling.Sampler(module("transitions").Euler(), corrector=corrector)


def _keep_and_correct(lib: ModuleType, module: Callable[[str], ModuleType]) -> Any:
    return lib.sampling.Sampler(module("transitions").Keep(0.7), corrector=module("correctors").Gibbs())


def _noised_around(lib: ModuleType, module: Callable[[str], ModuleType]) -> Any:
    corrector = module("correctors").Gibbs()
    transition = module("transitions").Keep(0.7)
    return lib.sampling.Sampler(transition, corrector=corrector, passes=2, noises_known=True)


SLOTS: dict[str, Callable[[ModuleType, Callable[[str], ModuleType]], Any]] = {
    "shaped": _shaped,
    "first_hitting by a schedule": _by_schedule,
    "likeliest in blocks": _likeliest_in_blocks,
    "euler and correct": _euler_and_correct,
    "keep and correct": _keep_and_correct,
    "noised around": _noised_around,
}


def make_sampler(lib: ModuleType, name: str) -> Any:
    """Makes the sampler of this name in one of the libraries."""

    def module(name: str) -> ModuleType:
        return importlib.import_module(f"{lib.__name__}.sampling.{name}")

    if name in SLOTS:
        return SLOTS[name](lib, module)
    return module("named").SAMPLERS[name](**OPTIONS.get(name, {}))
