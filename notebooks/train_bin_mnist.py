# %% [markdown]
# # Binarised MNIST: train, go on, sample, evaluate
#
# A config made in Python, a run in a folder, the same run continued with more iterations and other intervals
# of saving and sampling, then samples and a bound on the test images.
#
# It takes about three minutes on two CPU cores, with 8 x 8 digits of scikit-learn. Where `DATA_DIR` has the
# MNIST of TFDS (`tfds build mnist --file_format=array_record`), it takes that: for bounds like those of
# docs/results.md set `STEPS = 6000`, `LIMIT = 1000` and `ema_decay=0.999`, which is hours on a CPU. It needs,
# in the clone, `pip install -e '.[train,notebooks]'`.

# %% tags=["parameters"]
import os

DATA_DIR = os.environ.get("TFDS_DATA_DIR")  # None: 8 x 8 digits
STEPS = 300  # 6,000 for the figures of docs/results.md
MORE = 200  # steps when the run goes on
LIMIT = 200  # test images to evaluate

# %%
import dataclasses
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from d3pm_jax import runs, show
from d3pm_jax.config import Adam, Config, Cosine, Digits, HybridLoss, TfdsImages, Train, UNet, Uniform
from d3pm_jax.evaluation import baselines

WORKDIR = Path("runs/bin_mnist")


def grid(x, columns=16):
    """A picture of images [N, H, W, 1] of two categories."""
    return Image.fromarray(show.grid(show.to_rgb(np.asarray(x), 2), columns))


# %% [markdown]
# ## The data
#
# `binarize="dynamic"` draws each pixel as 1 with the probability of its grey level: anew in every epoch of
# the training, once and for all for evaluation. So x_0 has K = 2 categories.

# %%
mnist = DATA_DIR is not None and (Path(DATA_DIR) / "mnist").is_dir()
data = TfdsImages("mnist", dir=DATA_DIR, binarize="dynamic") if mnist else Digits(binarize="dynamic")
test = np.stack([data.open("test")[i]["x"] for i in range(64)])
print("shape", data.describe().shape, "categories", data.describe().categories)
grid(test)

# %% [markdown]
# ## The config
#
# It says what there is and computes nothing: a uniform process, in which a step replaces some pixels by a
# fair coin, with T = 100 steps of the cosine schedule; a U-Net; and the hybrid loss, whose logits are the
# leave-one-out posterior of x_0.

# %%
config = Config(
    data=data,
    process=Uniform(K=2, steps=100, beta=Cosine()),
    model=UNet(
        ch=32,
        ch_mult=(1, 2, 2) if mnist else (1, 2),
        num_res_blocks=1,
        attn_resolutions=(7,) if mnist else (4,),
        groups=8,
        dropout=0.0,
    ),
    loss=HybridLoss(ce_weight=0.01),
    optimizer=Adam(lr=1e-3, warmup_steps=50, decay_steps=STEPS + MORE),
    train=Train(steps=STEPS, batch_size=64, ema_decay=0.99, log_every=20, checkpoint_every=100, held_out=100),
)

# %% [markdown]
# What the noise does to four test images, from x_0 on the left to x_T on the right, which is a fair coin for
# every pixel:

# %%
process = config.process.build()
times = [0, 5, 10, 20, 30, 40, 50, 60, 80, 100]
forward = runs.draw_forward(jax.random.key(0), process, test[:4], times)  # [R, N, H, W, 1]
grid(forward.swapaxes(0, 1).reshape(-1, *test.shape[1:]), len(times))

# %% [markdown]
# ## Training
#
# Everything is written to a folder: the config, checkpoints, a line of metrics for every 20 steps. The cell
# may be interrupted (Kernel > Interrupt): the step that runs is finished and saved, and the run of that step
# is returned. So a folder that is there already is opened in place of a training, and the cells below go on
# with it; delete it to begin anew.

# %%
run = runs.open(WORKDIR) if WORKDIR.exists() else runs.train(config, WORKDIR)
print("step", run.step, "of", run.config.train.steps)

# %% [markdown]
# ## Going on
#
# The config is in the folder, so nothing above is needed to go on: open the run, take its config, change how
# long it trains and what is written when, and resume. Here the second part saves more often and draws a
# picture of samples after 100 steps. What would make it another run (the process, the network, the batch
# size, ..) cannot be changed, and the result is to the bit that of a run that never stopped.

# %%
saved = runs.open(WORKDIR).config
assert saved == dataclasses.replace(config, train=saved.train)
train = dataclasses.replace(
    saved.train, steps=STEPS + MORE, checkpoint_every=50, sample_every=100, eval_every=50
)
run = runs.train(dataclasses.replace(saved, train=train), WORKDIR, resume=True)
assert run.step == STEPS + MORE
print("checkpoints", run.list_steps())

# %% [markdown]
# The bound during training, estimated on each batch, and, from where it went on, that of the averaged weights
# on images held back. The first hundred steps take off most.

# %%
rows = runs.read_metrics(WORKDIR)
held_out = [row for row in rows if "valid_bits_per_dim" in row]
plt.figure(figsize=(6, 3), layout="constrained")
plt.plot([row["step"] for row in rows], [row["bound_bits_per_dim"] for row in rows], label="training batches")
plt.plot(
    [row["step"] for row in held_out],
    [row["valid_bits_per_dim"] for row in held_out],
    ".-",
    label="images held back",
)
plt.xlabel("step")
plt.ylabel("bound [bits/dim]")
plt.title(run.caption, fontsize=9)
plt.legend()
plt.show()

# %% [markdown]
# ## Samples
#
# The reverse chain begins at x_T, coins, and takes T = 100 steps. `record` keeps some states of it. Sample i
# depends on the key, on i and on the weights, not on how many are drawn together. Below: 64 samples.

# %%
times = [100, 80, 60, 50, 40, 30, 20, 10, 5, 0]
drawn = run.sample(jax.random.key(0), 64, runs.Draw(record=times))
samples, states = drawn.x0, drawn.states
assert samples.shape == test.shape
grid(samples)

# %% [markdown]
# The chains of the first four, from coins on the left to samples on the right. Strokes appear around the
# middle, and the last steps clean single pixels.

# %%
grid(states[:, :4].swapaxes(0, 1).reshape(-1, *test.shape[1:]), len(times))

# %% [markdown]
# ## The bound
#
# -log p(x_0) of a test image is at most the sum of T + 1 terms: the reconstruction at t = 1, a KL divergence
# for each of t = 2..T, and the prior at T. Beside it, what independent pixels have, with the frequencies of
# the training images. A network that has learnt how pixels depend on each other is below that.

# %%
x0, _ = run.read_split("test", LIMIT)
bound = run.evaluate_on(x0)
pixels = baselines.histogram_nats(run.read_split("train")[0], x0, 2).mean()
print(f"{len(x0)} test images: {bound['nats']:.2f} +- {bound['nats_standard_error']:.2f} nats per image")
print(f"{bound['bits_per_dim']:.3f} +- {bound['standard_error']:.3f} bits/dim")
print(f"independent pixels: {pixels:.2f} nats per image")
np.testing.assert_allclose(sum(bound["steps"]) + bound["prior"], bound["bits_per_dim"], rtol=1e-5)

# %%
plt.figure(figsize=(6, 3), layout="constrained")
plt.plot(bound["times"], bound["steps"])
plt.xlabel("t")
plt.ylabel("term [bits/dim]")
plt.title(f"terms of the bound, {len(x0)} test images; prior KL {bound['prior']:.1e}")
plt.show()
