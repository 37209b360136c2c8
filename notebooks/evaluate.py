# %% [markdown]
# # Evaluating a run: bounds, few steps, sample quality
#
# One trained network has many bounds: with all steps of its process, with fewer of them, evenly spaced or
# chosen, computed in full or estimated. And a bound says little of how good samples are. This notebook
# computes all of these for a run, and keeps what each figure depends on beside it.
#
# It takes about three minutes on two CPU cores, most of it to train a small run first. With a run of your own
# in `WORKDIR` it evaluates that: then set `LIMIT` to all test examples and `SAMPLES` to 2,000. It needs, in
# the clone, `pip install -e '.[train,notebooks]'`.

# %% tags=["parameters"]
WORKDIR = "runs/evaluate"
STEPS = 300  # of the training
LIMIT = 100  # test examples
COUNTS = [2, 5, 10, 20]  # steps to take in place of all
SAMPLES = 256

# %%
import itertools
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from d3pm_jax import runs, sampling, show
from d3pm_jax.config import Adam, Config, Digits, Gaussian, Linear, Train, UNet
from d3pm_jax.evaluation import baselines

config = Config(
    data=Digits(),
    process=Gaussian(K=17, steps=50, beta=Linear(1e-4, 0.02)),
    model=UNet(ch=32, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(), groups=8, onehot_input=True),
    optimizer=Adam(lr=2e-3, warmup_steps=50, decay_steps=STEPS),
    train=Train(steps=STEPS, batch_size=64, ema_decay=0.99, held_out=100),
)
run = runs.open(WORKDIR) if Path(WORKDIR).exists() else runs.train(config, WORKDIR)
print(run.caption)

# %% [markdown]
# ## The bound, and its parts
#
# -log p(x_0) <= -log p(x_0 | x_1) + sum over t of KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) + KL(q(x_T |
# x_0) || p(x_T)). Each term is estimated from one x_t for each example; the standard error is over the
# examples. It compares with another figure where the examples are the same, and only there.

# %%
x0, labels = run.read_split("test", LIMIT)
whole = run.evaluate_on(x0, labels)
levels = run.parts.recipe.categories
D = x0[0].size
pixels = baselines.histogram_nats(run.read_split("train")[0], x0, levels).mean() / (D * np.log(2))
print(f"{len(x0)} examples: {whole['bits_per_dim']:.3f} +- {whole['standard_error']:.3f} bits/dim")
print(f"reconstruction {whole['reconstruction']:.3f}, prior {whole['prior']:.1e}, the steps between the rest")
print(f"the histogram of each pixel has {pixels:.3f}")
np.testing.assert_allclose(sum(whole["steps"]) + whole["prior"], whole["bits_per_dim"], rtol=1e-5)

# %% [markdown]
# It is T calls of the network for each example. `calls=5` takes five for each, one from each fifth of the
# steps, and estimates the sum without bias: the standard error, which holds this choice as well, grows.

# %%
estimate = run.evaluate_on(x0, labels, calls=5)
print(f"from 5 calls: {estimate['bits_per_dim']:.3f} +- {estimate['standard_error']:.3f} bits/dim")

# %% [markdown]
# ## Fewer steps
#
# A shorter process takes some of the steps, and has a bound of its own: what it loses is that x_s is drawn
# from x_t with the elements independent of each other, over a longer way. Which steps? Evenly spaced ones, or
# those whose bound is the lowest: the cost of going from t to s is measured for every pair, on examples that
# are not of the test, and dynamic programming finds the cheapest way from T to 0 in n jumps (Watson et al.
# 2021). Measured once, it serves every n.

# %%
jumps = run.measure_jumps()
chosen = {n: jumps.grid(n) for n in COUNTS}


def cost(positions):
    """Nats per example of going through these of the measured times, to 0."""
    return sum(jumps.costs[s, t] for s, t in itertools.pairwise([0, *positions]))


for n in COUNTS:
    cheapest = sampling.best_grid(jumps.costs, n)
    spaced = sampling.even_grid(len(jumps.times), n)
    assert cost(cheapest) <= cost(spaced) + 1e-6

even = {n: run.respaced(n).evaluate_on(x0, labels) for n in COUNTS}
best = {n: run.respaced(chosen[n]).evaluate_on(x0, labels) for n in COUNTS}
for n in COUNTS:
    bounds = f"even {even[n]['bits_per_dim']:.3f}, chosen {best[n]['bits_per_dim']:.3f} bits/dim"
    print(f"{n:>3} steps: {bounds}, t = {chosen[n]}")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for name, bounds_by_steps in {"even": even, "chosen": best}.items():
    left.plot(COUNTS, [bounds_by_steps[n]["bits_per_dim"] for n in COUNTS], "o-", label=name)
left.axhline(whole["bits_per_dim"], color="grey", linestyle=":", label=f"all {run.process.T}")
left.set(xlabel="steps", ylabel="bound [bits/dim]", title="bound by number of steps", xscale="log")
left.set_xticks(COUNTS, COUNTS)
left.minorticks_off()
left.legend()
for n, times in chosen.items():
    right.plot(times, [n] * len(times), ".")
right.set(xlabel="t", ylabel="steps", title="the chosen steps", yscale="log")
right.set_yticks(COUNTS, COUNTS)
right.minorticks_off()
plt.show()

# %% [markdown]
# With few steps the choice matters most. The chosen ones crowd where most of the bound is, and leave the
# noisy end, of which little is to be learnt, to one long jump.
#
# ## How good samples are
#
# Samples are compared with all of the training split in features of a classifier of the data: the Fréchet
# distance between the two clouds, precision (the share of samples that lie near training examples) and recall
# (the share of training examples near samples). Each figure stands beside three others, measured in the same
# way: as many training examples, test examples, and samples of the per-pixel histogram, which know nothing of
# shapes. Near the first two is good, near the last is bad. (The classifier is trained once, in seconds, and
# kept in the user's cache.)

# %%
few = run.respaced(chosen[COUNTS[1]])
reference = run.prepare_quality(SAMPLES)
of_all = run.measure_quality(reference, SAMPLES)
of_few = few.measure_quality(reference, SAMPLES)
for measured in (of_all, of_few):
    runs.write_quality(measured.record, run.workdir)
columns = {
    f"{run.process.T} steps": of_all.figures["samples"],
    f"{few.process.T} steps": of_few.figures["samples"],
    "training": of_all.figures["train"],
    "test": of_all.figures["test"],
    "per pixel": of_all.figures["per-pixel"],
}
print(f"{'':<10}" + "".join(f"{name:>11}" for name in columns))
between = []
for figure in ("frechet", "precision", "recall", "nearest", "copies"):
    print(f"{figure:<10}" + "".join(f"{row[figure]:>11.3f}" for row in columns.values()))
    low, high = sorted(columns[name][figure] for name in ("test", "per pixel"))
    sample_rows = list(columns.values())[:2]
    if all(low < row[figure] < high for row in sample_rows):
        between.append(figure)
print("samples lie between test and per pixel in", ", ".join(between) or "none of these")
assert columns["training"]["frechet"] < columns["test"]["frechet"] < columns["per pixel"]["frechet"]

# %% [markdown]
# After 300 steps of training the Fréchet distance of the samples and how near they are to training examples
# lie between the test split and the per-pixel histogram. Their precision does not: it is below that of all
# three. No figure says everything. (The test split is farther off than the training examples are, since they
# are part of the reference, and the classifier has seen them.) Training examples are copies, all of them, and
# of the test examples of these digits none is; samples should be like the latter. Here are some, each with
# the training example nearest to it on its right.

# %%
assert of_all.figures["train"]["copies"] == 1
assert of_all.figures["test"]["copies"] == 0 or WORKDIR != "runs/evaluate"
pairs = np.stack([of_all.samples[:16], of_all.nearest[:16]], axis=1)
Image.fromarray(show.grid(show.to_rgb(pairs.reshape(-1, *x0.shape[1:]), levels), 16))

# %% [markdown]
# ## What may be compared
#
# `runs.write_quality` has kept each figure with its protocol: all that it depends on. Two records of figures
# compare where N, the split, the hash of its examples and the features are the same;
# `runs.list_incomparable` names what is not. A Fréchet distance is biased upwards in proportion to
# 1 / N, so that another number of samples has another figure:

# %%
stored = runs.read_quality([run.workdir])
assert not any(runs.list_incomparable(stored[0], record) for record in stored)
for name in ("N", "split", "reference", "step", "steps", "grid", "sampler", "belief", "ema", "seed"):
    print(f"{name:>10}: {str(of_few.record.protocol[name])[:60]}")

half = few.measure_quality(run.prepare_quality(SAMPLES // 2), SAMPLES // 2)
both = (measured.figures["samples"]["frechet"] for measured in (of_few, half))
print(
    "differs in",
    runs.list_incomparable(of_few.record, half.record),
    "Fréchet {:.1f} and {:.1f}".format(*both),
)
