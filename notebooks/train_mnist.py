# %% [markdown]
# # MNIST in grey: levels with an order, and labels
#
# A discretised Gaussian process on grey levels, with a network that is told which digit it is to draw. The
# run is trained in two parts, the second with another learning rate, more pictures and more checkpoints; then
# it draws the digits that are asked for, with all steps and with few, and is evaluated beside two baselines.
#
# It takes about three minutes on two CPU cores, with the 8 x 8 digits of 17 levels that scikit-learn carries.
# Where `DATA_DIR` has the MNIST of TFDS (`tfds build mnist --file_format=array_record`) it takes that, with
# 256 levels: set `STEPS = 9000` then, and expect hours on a CPU. It needs, in the clone,
# `pip install -e '.[train,notebooks]'`.

# %% tags=["parameters"]
import os

DATA_DIR = os.environ.get("TFDS_DATA_DIR")  # None: 8 x 8 digits
STEPS = 300  # 9,000 for MNIST
MORE = 100  # steps when the run goes on
LIMIT = 100  # test images to evaluate

# %%
import dataclasses
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from d3pm_jax import runs, show
from d3pm_jax.config import Adam, Config, Digits, Gaussian, HybridLoss, Linear, TfdsImages, Train, UNet
from d3pm_jax.evaluation import baselines

WORKDIR = Path("runs/mnist")
mnist = DATA_DIR is not None and (Path(DATA_DIR) / "mnist").is_dir()
data = TfdsImages("mnist", dir=DATA_DIR) if mnist else Digits()
K = data.describe().categories
print("shape", data.describe().shape, "levels", K)


def grid(x, columns):
    """A picture of images [N, H, W, 1]."""
    return Image.fromarray(show.grid(show.to_rgb(np.asarray(x), K), columns))


# %% [markdown]
# ## The config
#
# Levels have an order, and a step of this process goes to near ones: the matrix Q_t is a discretised Gaussian
# whose width grows with beta_t. `classes=10` tells the network the label, in training and in sampling. A step
# of the reverse chain then depends on the digit that is asked for.

# %%
config = Config(
    data=data,
    process=Gaussian(K=K, steps=100, beta=Linear(1e-4, 0.02)),
    model=UNet(
        ch=32,
        ch_mult=(1, 2, 2) if mnist else (1, 2),
        num_res_blocks=1,
        attn_resolutions=(7,) if mnist else (),
        groups=8,
        onehot_input=True,
        dropout=0.0,
        classes=10,
    ),
    loss=HybridLoss(ce_weight=0.01),
    optimizer=Adam(lr=2e-3, warmup_steps=50),
    train=Train(steps=STEPS, batch_size=64, ema_decay=0.99, log_every=20, checkpoint_every=200),
)

# %% [markdown]
# What the noise does to four test images. Small changes of grey come first, the shape goes later, and x_T is
# close to uniform over the levels. With uniform noise (the notebook train_bin_mnist) single pixels are lost
# at once instead.

# %%
process = config.process.build()
test = np.stack([data.open("test")[i]["x"] for i in range(4)])
times = [0, 1, 2, 5, 10, 20, 30, 50, 70, 100]
forward = runs.draw_forward(jax.random.key(0), process, test, times)  # [R, N, H, W, 1]
grid(forward.swapaxes(0, 1).reshape(-1, *test.shape[1:]), len(times))

# %% [markdown]
# ## Training, in two parts
#
# Where the folder is there already, its run is opened in place of a training; delete it to begin anew. To
# interrupt the cell is safe: the step is finished and saved, and its run returned.

# %%
run = runs.open(WORKDIR) if WORKDIR.exists() else runs.train(config, WORKDIR)

# %% [markdown]
# The second part takes the config from the folder and changes what may change: more steps, a rate that now
# decays to 0 at the end, a checkpoint every 50 steps of which three are kept, and a picture of samples at the
# end.

# %%
saved = runs.open(WORKDIR).config
config = dataclasses.replace(
    saved,
    optimizer=dataclasses.replace(saved.optimizer, decay_steps=STEPS + MORE),
    train=dataclasses.replace(
        saved.train,
        steps=STEPS + MORE,
        checkpoint_every=50,
        keep_checkpoints=3,
        sample_every=STEPS + MORE,
    ),
)
run = runs.train(config, WORKDIR, resume=True)
assert run.step == STEPS + MORE
print("checkpoints", run.list_steps())

# %%
rows = runs.read_metrics(WORKDIR)
plt.figure(figsize=(6, 3), layout="constrained")
plt.plot([row["step"] for row in rows], [row["bound_bits_per_dim"] for row in rows])
plt.axvline(STEPS, color="grey", linestyle=":")
plt.xlabel("step")
plt.ylabel("bound [bits/dim]")
plt.title(f"{run.caption}\nbound of training batches; dotted: where it went on", fontsize=9)
plt.show()

# %% [markdown]
# ## The digits that are asked for
#
# Sample i is of class i modulo 10, unless `Draw(label=...)` asks for one. Each column of the picture below
# has one class, 0 to 9; in the lower one all are threes.

# %%
key = jax.random.key(0)
samples = run.sample(key, 50).x0
grid(samples, 10)

# %%
threes = run.sample(key, 50, runs.Draw(label=3)).x0
grid(threes[:20], 10)

# %% [markdown]
# Fewer steps make the same run faster: `respaced` takes 10 of the 100, evenly spaced, and the network is told
# the steps that it knows. The same key, columns 0 to 9:

# %%
few = run.respaced(10).sample(key, 50).x0
grid(few[:20], 10)

# %% [markdown]
# ## The bound
#
# On test images, with all steps. Beside it the histogram of each pixel, and a mixture of such histograms for
# the ten classes. The network is told the label, so its bound is one on -log p(x_0 given the label). That is
# worth at most log2(10) bits for each image, the last line.

# %%
x0, labels = run.read_split("test", LIMIT)
train, train_labels = run.read_split("train")
D = x0[0].size
bound = run.evaluate_on(x0, labels)
pixels = baselines.histogram_nats(train, x0, K).mean() / (D * np.log(2))
mixture = baselines.class_mixture_nats(train, train_labels, x0, K).mean() / (D * np.log(2))
print(f"{len(x0)} test images: {bound['bits_per_dim']:.3f} +- {bound['standard_error']:.3f} bits/dim")
print(f"histogram of each pixel: {pixels:.3f}, mixture of class histograms: {mixture:.3f}")
print(f"a label is worth at most {np.log2(10) / D:.3f}")

# %%
plt.figure(figsize=(6, 3), layout="constrained")
plt.plot(bound["times"], bound["steps"])
plt.yscale("log")
plt.xlabel("t")
plt.ylabel("term [bits/dim]")
plt.title(f"terms of the bound, {len(x0)} test images; prior KL {bound['prior']:.1e} bits/dim", fontsize=9)
plt.show()

# %% [markdown]
# Nearly all of the bound is at small t, where neighbouring levels are told apart. The shape of a digit, which
# the chain decides at large t, costs little in bits: samples show it and bounds do not.
