# %% [markdown]
# # One noise for JAX and PyTorch
#
# Two programs with two random generators can be compared in distribution only. With the noise of a training
# in a file, both see the same t and the same uniforms at every step, and their losses can be compared number
# by number. Here JAX and PyTorch train the same network from the same weights on the same batches and the
# same noise.
#
# It takes about a minute on two CPU cores. What the two differ by grows slowly with `STEPS`, as rounding is
# carried on by the optimizer; 4 to 100 steps were tried. It needs, in the clone,
# `pip install -e '.[train,torch,notebooks]'`.

# %% tags=["parameters"]
STEPS = 30

# %%
import dataclasses
import shutil
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import safetensors.torch
import torch

import torch_ref
from d3pm_jax import data, runs
from d3pm_jax.config import Adam, Config, Cosine, Digits, Head, HybridLoss, Train, UNet, Uniform
from d3pm_jax.weights import twin
from torch_ref.runs import presampled
from torch_ref.training import adamw, average, learning_rate, train_step

FOLDER = Path("runs/presampled")
shutil.rmtree(FOLDER, ignore_errors=True)  # of an earlier execution
FOLDER.mkdir(parents=True)

# %% [markdown]
# ## The config, and its noise
#
# `runs.presample`, or `d3pm presample CONFIG --out FILE`, draws what the training would draw from its seed:
# one record for each step, with t, the probability of each t, and one uniform for each element.

# %%
network = {
    "ch": 16,
    "ch_mult": (1,),
    "num_res_blocks": 1,
    "attn_resolutions": (),
    "groups": 4,
    "dropout": 0.0,
}
config = Config(
    data=Digits(),
    process=Uniform(K=17, steps=50, beta=Cosine()),
    head=Head(residual=True),
    model=UNet(**network),
    loss=HybridLoss(ce_weight=0.01, belief="leave_one_out"),
    optimizer=Adam(lr=1e-3, warmup_steps=10),
    train=Train(steps=STEPS, batch_size=32, ema_decay=0.9, log_every=1),
)
NOISE = FOLDER / "noise.array_record"
runs.presample(config, NOISE)
print(f"{STEPS} steps, {NOISE.stat().st_size / 1000:.0f} kB")
t, u = next(presampled.read(NOISE))
print("first step: t =", t[:8].tolist(), "..., u", tuple(u.shape))

# %% [markdown]
# ## The file changes nothing
#
# A training with the file ends with the same bits as one that draws its noise itself. Both begin from the
# same weights of PyTorch: a module with random weights, whose tensors `runs.import_weights` makes step 0 of a
# run.

# %%
torch.manual_seed(0)
module = torch_ref.models.UNet(17, 1, size=8, max_time=50, **network)
for p in module.parameters():  # layers that begin as zeros too: nothing is to be equal for that reason
    if p.ndim > 1:
        torch.nn.init.normal_(p, std=0.05)
START = FOLDER / "start.safetensors"
safetensors.torch.save_file(module.state_dict(), START)


def trained(name, noise):
    """The run of this name, trained with a file of noise or without."""
    workdir = FOLDER / name
    runs.import_weights(START, config, workdir)
    train = dataclasses.replace(config.train, noise=noise)
    return runs.train(dataclasses.replace(config, train=train), workdir, resume=True)


drawn = trained("drawn", None)
with_file = trained("with_file", str(NOISE))
for a, b in zip(*(jax.tree.leaves(run.params) for run in (drawn, with_file)), strict=True):
    np.testing.assert_array_equal(a, b)
print("the same weights, to the bit, after", with_file.step, "steps")

# %% [markdown]
# ## The same training in PyTorch
#
# The batches are a function of (seed, step), so both take the same ones. The loop below is all there is:
# AdamW, clipping, warm-up and the averaged weights of `torch_ref.training`.

# %%
process = torch_ref.uniform(torch_ref.cosine(50), 17)
batches = data.train_batches(config.data.open("train"), config.train.batch_size, config.train.seed, 17)
optimizer = adamw(module, (config.optimizer.b1, config.optimizer.b2), config.optimizer.weight_decay)
ema = {name: p.detach().clone() for name, p in module.named_parameters()}


def denoise(xt, t):
    """The network and its head."""
    return torch_ref.residual(module(xt, t), xt)


losses = []
for step, (t, u) in enumerate(presampled.read(NOISE)):
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, config.optimizer.lr, config.optimizer.warmup_steps)
    x0 = torch.tensor(next(batches)["x"]).long()
    metrics = train_step(
        denoise, optimizer, process, x0, t, u, config.loss.ce_weight, config.optimizer.clip, "leave_one_out"
    )
    average(ema, dict(module.named_parameters()), config.train.ema_decay, step)
    losses.append(float(metrics.loss))

# %% [markdown]
# ## Compared
#
# The loss of each step from `metrics.jsonl` of the run, and that of PyTorch. The curves lie on each other;
# below, how far they are apart. It begins with the rounding of float32, and grows as the weights drift apart,
# slowly.

# %%
ours = [row["loss"] for row in runs.read_metrics(FOLDER / "with_file")]
apart = np.abs(np.array(ours) - losses) / np.abs(losses)
figure, (above, below) = plt.subplots(2, 1, figsize=(6, 4.4), sharex=True, layout="constrained")
above.plot(ours, label="JAX", linewidth=3, alpha=0.5)
above.plot(losses, "--", color="black", linewidth=1, label="PyTorch")
above.set(ylabel="hybrid loss [nats]", title="one training in two frameworks, from the same noise")
above.legend()
below.semilogy(np.maximum(apart, 1e-9), ".-")
below.set(xlabel="step", ylabel="relative difference")
plt.show()
assert apart[0] < 1e-5, apart[0]
assert apart.max() < 1e-3, apart.max()

# %%
tensors = twin.to_torch(with_file.params)  # the averaged weights, under the names of PyTorch
worst = max(np.abs(tensors[name] - ema[name].numpy()).max() / ema[name].abs().max() for name in tensors)
assert set(tensors) == set(ema)
assert worst < 1e-3, worst
print(f"{len(tensors)} tensors of averaged weights agree within 1e-3 of the largest entry of each")
