"""Guidance by a classifier on trained digits: how far the first order is from exact, and what samples become.

    python benchmarks/classifier_guidance.py RUN CLASSIFIER [--num 60] [--steps 25] [--gammas 0,1,2,4]
        [--without exact]

RUN is one of configs/digits_uniform.py and CLASSIFIER one of configs/digits_noisy_classifier.py. The first
table is of the law of x_s given x_t of test digits, for the class that the digit is and for the next one: how
many of the 64 pixels the exact law would draw otherwise than the law without guidance, by the same uniform
noise and at least, which is the sum of their total variations; and how many the first order would draw
otherwise than the exact law, with the largest total variation of a single pixel. The second is of samples:
how many are of the class that was asked for, in the verdict of `digits_quality.Judge`, how many are taken for
digits at all, and how many of them differ. The exact law takes minutes for 60 samples.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from digits_quality import Judge

from d3pm_jax import posteriors, runs
from d3pm_jax.runs.run import Run
from d3pm_jax.sampling import guidance

STATES = 20  # x_t for each t
TIMES = (1, 10, 30, 50, 70, 90)
SEED = 0


def measure_laws(run: Run, classifier: Run, gammas: list[float]) -> None:
    """Prints the total variation between laws of x_s."""
    batch = run.read_batch("test", STATES)
    x0 = jnp.asarray(batch["x"])
    recipe = classifier.parts.recipe
    classes = recipe.classes
    process = run.process

    @jax.jit
    def draw_and_guide(params, classifier_params, process, x0, label, t, gamma):
        ts = jnp.full(len(x0), t, jnp.int32)
        u = jax.random.uniform(jax.random.fold_in(jax.random.key(SEED), t), x0.shape)
        xt = posteriors.q_sample(process, x0, ts, u)
        logits = run.parts.recipe.diffusion.network(params, xt, process.time[ts])
        log_law = posteriors.p_logits(process, logits, xt, ts, belief=run.config.loss.belief)
        time_s = process.time[ts - 1]

        def log_prob(one_hots, time):
            log_p = recipe.classifier.log_probs(classifier_params, one_hots, time)
            labels = jnp.tile(label, len(one_hots) // len(label))
            return jnp.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]

        changes = guidance.first_order_changes(log_prob, xt, time_s, process.K)
        first_order = guidance.tilt_logits(log_law, changes, gamma)
        exact = guidance.tilt_logits(log_law, guidance.all_changes(log_prob, xt, time_s, process.K), gamma)
        return tuple(map(jnp.exp, (log_law, first_order, exact)))

    print("pixels of 64 that are drawn otherwise, and the largest total variation of a pixel")
    print("   t  gamma  class     exact to unguided      first order to exact")
    for t in TIMES:
        for gamma in gammas:
            if gamma == 0:
                continue
            for name, shift in (("its own", 0), ("the next", 1)):
                label = jnp.asarray((batch["label"] + shift) % classes)
                law, first_order, exact = map(
                    np.asarray,
                    draw_and_guide(
                        run.params, classifier.params, process, x0, label, np.int32(t), np.float32(gamma)
                    ),
                )
                error = np.abs(first_order - exact).sum(-1) / 2  # [B, *S]
                effect = np.abs(exact - law).sum(-1) / 2
                print(
                    f"{t:4d}  {gamma:5g}  {name:8s}  {effect.sum() / STATES:8.3f} {effect.max():8.3f}      "
                    f"{error.sum() / STATES:8.3f} {error.max():8.3f}",
                    flush=True,
                )


def measure_samples(
    run: Run, classifier: Run, gammas: list[float], num: int, forms: tuple[bool, ...]
) -> None:
    """Prints what guided samples are like."""
    judge = Judge()
    label = np.arange(num) % 10
    print(f"\n{num} samples of {run.process.T} steps, sample i of class i modulo 10")
    print("gamma  law          of the class  digits  distinct")
    for gamma in gammas:
        for exact in forms:
            if gamma == 0 and exact:
                continue
            asked = runs.ClassifierGuidance(classifier, gamma, exact)
            draw = runs.Draw(label=label, guidance=asked)
            x = run.sample(jax.random.key(SEED), num, draw, batch_size=num).x0.reshape(num, -1)
            of_class = np.mean(judge.classes(x) == label)
            distinct = len(np.unique(x, axis=0)) / num
            name = "exact" if exact else "first order"
            print(
                f"{gamma:5g}  {name:11s}  {of_class:11.1%}  {judge.share(x):6.1%}  {distinct:7.1%}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("classifier")
    parser.add_argument("--num", type=int, default=60)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--gammas", default="0,1,2,4")
    parser.add_argument("--without", choices=("laws", "samples", "exact"), nargs="*", default=())
    options = parser.parse_args()
    gammas = [float(word) for word in options.gammas.split(",")]
    run = runs.open(options.run)
    classifier = runs.open(options.classifier)
    if "laws" not in options.without:
        measure_laws(run, classifier, gammas)
    if "samples" not in options.without:
        forms = (False,) if "exact" in options.without else (False, True)
        measure_samples(run.respaced(options.steps), classifier, gammas, options.num, forms)


if __name__ == "__main__":
    main()
