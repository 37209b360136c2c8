"""The solver of discrete flow matching (package flow_matching, `MixtureDiscreteEulerSolver`).

FLOW_MATCHING_OPTIONS: source=mask or uniform; dtype=float32, its default, or float64; div_free=0.
"""

import checkout
import torch
from torch.nn.functional import pad

try:
    from flow_matching.path import MixtureDiscreteProbPath
    from flow_matching.path.scheduler import PolynomialConvexScheduler
    from flow_matching.solver import MixtureDiscreteEulerSolver
except ImportError as error:
    raise checkout.UserError(f"{error}: pip install flow_matching, into an environment of its own") from error

OPTIONS = checkout.read_options("FLOW_MATCHING_OPTIONS", source="mask", dtype="float32", div_free=0.0)
noise = OPTIONS.source


def sample(denoise, K, L, n, seed, calls):
    torch.manual_seed(seed)
    masked = noise == "mask"
    start = torch.full((n, L), K) if masked else torch.randint(K, (n, L))
    categories = K + masked
    solver = MixtureDiscreteEulerSolver(
        model=lambda x, t: pad(denoise(x, t).exp(), (0, int(masked))),
        path=MixtureDiscreteProbPath(PolynomialConvexScheduler(n=1.0)),
        vocabulary_size=categories,
        source_distribution_p=torch.eye(K + 1)[K] if masked else torch.full((K,), 1 / K),
    )
    return solver.sample(
        start,
        step_size=None,
        time_grid=torch.linspace(0, 1, calls + 1),
        div_free=OPTIONS.div_free,
        dtype_categorical=getattr(torch, OPTIONS.dtype),
    )
