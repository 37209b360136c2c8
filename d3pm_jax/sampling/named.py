"""Names the samplers of papers, each a line of slots: `sampling.named.SAMPLERS` lists them all."""

from collections.abc import Callable

from d3pm_jax.sampling.correctors import Corrected, Gibbs, RateCorrector
from d3pm_jax.sampling.places import (
    Cosine,
    DrawnProbability,
    EntropyBound,
    Even,
    Factor,
    FirstHitting,
    LeastEntropy,
    Margin,
    PathPlanning,
    RandomOrder,
    Reveal,
    Threshold,
)
from d3pm_jax.sampling.sampler import Sampler
from d3pm_jax.sampling.speculative import Speculative
from d3pm_jax.sampling.transitions import (
    Cap,
    Euler,
    Keep,
    LeastConfident,
    Mixture,
    Poisson,
    Remask,
    RemaskLoop,
    Rescale,
    Stratified,
    Tweedie,
)
from d3pm_jax.schedules.continuous import Schedule


def ancestral() -> Sampler:
    """Draws x_{t-1} from p(x_{t-1} | x_t): every process (D3PM, 2107.03006)."""
    return Sampler()


def ddim(c: float = 1.0) -> Sampler:
    """Keeps x_t as often as the marginals allow: uniform, absorbing, marginal (DDIM, 2010.02502)."""
    return Sampler(Keep(c))


def psi(kappa: float = 0.95) -> Sampler:
    """Follows Bayes' rule with probability kappa, else noises x_0 afresh: every process (Psi, 2602.21185)."""
    return Sampler(Mixture(kappa))


def remdm_cap(eta: float = 0.04) -> Sampler:
    """Masks again with probability eta at most: absorbing (ReMDM, 2503.00307)."""
    return Sampler(Remask(Cap(eta)))


def remdm_rescale(eta: float = 0.05) -> Sampler:
    """Masks again with eta times the largest probability: absorbing (ReMDM, 2503.00307)."""
    return Sampler(Remask(Rescale(eta)))


def remdm_confidence() -> Sampler:
    """Masks again where it was least sure when unmasking: absorbing (ReMDM, 2503.00307)."""
    return Sampler(Remask(LeastConfident()))


def remdm_loop(rows: int = 100, alpha: float = 0.9) -> Sampler:
    """Holds a level for half of the rows while masking again: absorbing (ReMDM, 2503.00307)."""
    return Sampler(RemaskLoop(rows=rows, alpha=alpha))


def first_hitting(schedule: Schedule | None = None) -> Sampler:
    """Reveals one random place a call, at a time drawn for it: absorbing (2409.02908)."""
    return Sampler(FirstHitting(schedule=schedule))


def random_order() -> Sampler:
    """Reveals one random place a call: absorbing (any-order ARDM, 2110.02037)."""
    return Sampler(Reveal(RandomOrder()))


def least_entropy() -> Sampler:
    """Reveals the place of least entropy a call: absorbing (Dream, 2508.15487)."""
    return Sampler(Reveal(LeastEntropy()))


def margin(noise: float = 0.5) -> Sampler:
    """Reveals where the likeliest is furthest above the next, one place a call: absorbing (2502.06768)."""
    return Sampler(Reveal(Margin(noise)))


def speculative(drafts: int = 16) -> Sampler:
    """Drafts places, and keeps those that one random place a call would draw: absorbing (2504.20456)."""
    return Sampler(Speculative(drafts))


def maskgit(rows: int = 12, choice_temperature: float = 4.5) -> Sampler:
    """Reveals what was drawn most surely, by a cosine over the rows: absorbing (MaskGIT, 2202.04200)."""
    return Sampler(Reveal(DrawnProbability(choice_temperature), Cosine(rows)))


def llada(rows: int = 128) -> Sampler:
    """Reveals what was drawn most surely, as many places in each row: absorbing (LLaDA, 2502.09992)."""
    return Sampler(Reveal(DrawnProbability(), Even(rows)))


def p2(rows: int = 128, eta: float = 1.0) -> Sampler:
    """Reveals what was drawn most surely, and masks again what is less sure: absorbing (P2, 2502.03540)."""
    return Sampler(PathPlanning(rows, eta))


def fast_dllm_threshold(threshold: float = 0.9) -> Sampler:
    """Reveals what was drawn with at least this probability: absorbing (Fast-dLLM, 2505.22618)."""
    return Sampler(Reveal(DrawnProbability(), Threshold(threshold)))


def fast_dllm_factor(factor: float = 1.0) -> Sampler:
    """Reveals the most places n with (n + 1) (1 - p_n) below a factor: absorbing (Fast-dLLM, 2505.22618)."""
    return Sampler(Reveal(DrawnProbability(), Factor(factor)))


def entropy_bound(bound: float = 0.1) -> Sampler:
    """Reveals the places of least entropy up to a bound: absorbing (EB-Sampler, 2505.24857)."""
    return Sampler(Reveal(LeastEntropy(), EntropyBound(bound)))


def blocks(block: int = 1) -> Sampler:
    """Draws blocks from left to right, each by ancestral sampling: absorbing (BD3-LM, 2503.09573)."""
    return Sampler(block=block)


def tau_leaping() -> Sampler:
    """Leaps where rates have one event: uniform, absorbing, marginal, masked (tau-leaping, 2205.14987)."""
    return Sampler(Poisson())


def euler() -> Sampler:
    """Takes Euler steps along reverse rates: uniform, absorbing, marginal, masked (SEDD, 2310.16834)."""
    return Sampler(Euler())


def tweedie() -> Sampler:
    """Draws x_s as scores say, in rows of any length: uniform, absorbing, marginal (SEDD, 2310.16834)."""
    return Sampler(Tweedie())


def predictor_corrector(moves: int = 1, h: float = 0.1) -> Sampler:
    """Leaps along rates, then moves at the same level: uniform, absorbing, marginal (tauLDR, 2205.14987)."""
    return Sampler(Corrected(RateCorrector(moves, h), Poisson()))


def stratified() -> Sampler:
    """Moves when the summed hazard passes a whole number: every process (2601.02799)."""
    return Sampler(Stratified())


def gibbs(moves: int = 1) -> Sampler:
    """Draws single places anew at each level: every process of elements each on its own (2605.22765)."""
    return Sampler(Corrected(Gibbs(moves)))


def repaint(passes: int = 10, noises_known: bool = False) -> Sampler:
    """Repeats each step, with noising back up in between: every process (RePaint, 2201.09865)."""
    return Sampler(passes=passes, noises_known=noises_known)


SAMPLERS: dict[str, Callable[..., Sampler]] = {
    f.__name__: f
    for f in (
        ancestral,
        ddim,
        psi,
        remdm_cap,
        remdm_rescale,
        remdm_confidence,
        remdm_loop,
        first_hitting,
        random_order,
        least_entropy,
        margin,
        speculative,
        maskgit,
        llada,
        p2,
        fast_dllm_threshold,
        fast_dllm_factor,
        entropy_bound,
        blocks,
        tau_leaping,
        euler,
        tweedie,
        predictor_corrector,
        stratified,
        gibbs,
        repaint,
    )
}
