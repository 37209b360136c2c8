# %% [markdown]
# # A network from JAX to PyTorch, and back
#
# `torch_ref` has the names of `d3pm_jax` in plain PyTorch. Here a network is trained in JAX and written to a
# file, PyTorch builds the same network from it, and the two are compared on the same noise: logits, terms of
# the bound, samples. Then PyTorch trains it further, and the weights become a run of JAX again.
#
# It takes about two minutes on two CPU cores. Any run of a U-Net without labels, with the default head and
# the hybrid loss, will do in place of the small one that is trained first: set `WORKDIR` to its folder. It
# needs, in the clone, `pip install -e '.[train,torch,notebooks]'`.

# %% tags=["parameters"]
WORKDIR = "runs/pytorch"
STEPS = 200  # in JAX
FURTHER = 50  # in PyTorch

# %%
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.torch
import torch
from PIL import Image

import d3pm_jax as d3pm
import torch_ref
from d3pm_jax import runs, show
from d3pm_jax.config import Adam, Config, Cosine, Digits, Train, UNet, Uniform
from torch_ref.runs import exported, processes
from torch_ref.training import adamw, train_step

# %% [markdown]
# ## A run
#
# 8 x 8 digits of 17 grey levels, uniform noise, a small U-Net.

# %%
config = Config(
    data=Digits(),
    process=Uniform(K=17, steps=50, beta=Cosine()),
    model=UNet(ch=16, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(), groups=4, dropout=0.0),
    optimizer=Adam(lr=2e-3, warmup_steps=20),
    train=Train(steps=STEPS, batch_size=64, ema_decay=0.99),
)
run = runs.open(WORKDIR) if Path(WORKDIR).exists() else runs.train(config, WORKDIR)

# %% [markdown]
# ## The file
#
# `runs.export`, or `d3pm export RUN --to torch`, writes the averaged weights under the names and in the
# layouts of `torch_ref.models`, with the config beside them. That is all that PyTorch needs: `denoiser` is
# the network with its head, `process` the forward process as dense matrices, and `logits_keywords` says what
# the logits are.

# %%
FILE = Path("runs/pytorch.safetensors")
FILE.parent.mkdir(parents=True, exist_ok=True)
runs.export(run, FILE)
denoise = exported.denoiser(FILE)
process = processes.process(FILE)
meaning = exported.logits_keywords(FILE)
print(f"{FILE.stat().st_size / 1000:.0f} kB; the logits are", meaning)

# %% [markdown]
# ## The same numbers
#
# Noise is an argument in both, so x_t is the same integers. The logits of the two networks, and the term of
# the bound at each t, then differ by rounding alone.

# %%
x0, _ = run.read_split("test", 16)
t = np.linspace(1, run.process.T, 16).astype(int)
u = np.random.default_rng(0).random(x0.shape, np.float32)
xt = d3pm.q_sample(run.process, jnp.asarray(x0), jnp.asarray(t), jnp.asarray(u))
xt_torch = torch_ref.q_sample(process, *map(torch.tensor, (x0.astype(int), t, u)))
np.testing.assert_array_equal(xt, xt_torch)

logits = run.predict(xt, jnp.asarray(t))
with torch.no_grad():
    logits_torch = denoise(xt_torch, torch.tensor(t))
largest = float(jnp.abs(logits).max())
print(f"logits up to {largest:.1f}")
np.testing.assert_allclose(logits, logits_torch, rtol=0, atol=1e-5 * largest)

kl = d3pm.posterior_kl(run.process, logits, jnp.asarray(x0), xt, jnp.asarray(t), **meaning)
kl_torch = torch_ref.posterior_kl(
    process, logits_torch, torch.tensor(x0).long(), xt_torch, torch.tensor(t), **meaning
)
print("mean term:", f"{kl.mean():.5f} nats in JAX, {kl_torch.mean():.5f} in PyTorch")
np.testing.assert_allclose(kl, kl_torch, rtol=1e-3, atol=1e-5)

# %% [markdown]
# ## The same samples
#
# A reverse chain draws one uniform for each element at each step. With the same ones the two chains end with
# the same pictures: JAX above, PyTorch below. (In float32 a uniform may lie so near to the edge between two
# categories that rounding decides; then a pixel differs, and the chain goes on from there. It is rare enough
# that these have none.)

# %%
noise = d3pm.sampling.per_example(jax.random.key(0), jnp.arange(8), x0.shape[1:])


def noise_torch(t):
    """The same uniforms as a tensor."""
    return torch.tensor(np.asarray(noise(jnp.asarray(t, jnp.int32))))


xT = run.process.draw_prior(noise(jnp.asarray(0)))  # the prior has the uniforms of t = 0
chain = jax.jit(
    lambda process, xT: d3pm.sampling.run(
        d3pm.Denoiser(process, run.predict, meaning["belief"]), xT, lambda t, stream: noise(t)
    )
)(run.process, xT)
with torch.no_grad():
    chain_torch = torch_ref.sampling.run(
        torch_ref.Denoiser(process, denoise, meaning["belief"]),
        torch.tensor(np.asarray(xT)).long(),
        lambda t, stream: noise_torch(t),
    )
same = np.mean(np.asarray(chain.x0) == chain_torch.x0.numpy())
print(f"{same:.1%} of the pixels are the same")
assert same > 0.9
both = np.concatenate([chain.x0, chain_torch.x0.numpy()])
Image.fromarray(show.grid(show.to_rgb(both, run.parts.recipe.categories), 8))

# %% [markdown]
# ## Training in PyTorch
#
# The module is an ordinary `torch.nn.Module`. `torch_ref.training` has the step of the trainer: AdamW after
# clipping by the global norm, of the hybrid loss; any loop of your own does as well.

# %%
module = exported.network(FILE)
optimizer = adamw(module, (0.9, 0.999), 0.0)
for group in optimizer.param_groups:
    group["lr"] = 5e-4
generator = np.random.default_rng(1)
losses = []
train = torch.tensor(run.read_split("train")[0]).long()
for _ in range(FURTHER):
    x0_torch = train[generator.integers(0, len(train), 64)]
    t_torch = torch.tensor(generator.integers(1, process.T + 1, 64))
    u_torch = torch.tensor(generator.random(x0_torch.shape, np.float32))
    metrics = train_step(
        lambda xt, t: torch_ref.residual(module(xt, t), xt),  # as the head of the config
        *(optimizer, process, x0_torch, t_torch, u_torch),
        ce_weight=run.config.loss.ce_weight,
        clip=1.0,
        belief=meaning["belief"],
    )
    losses.append(float(metrics.kl))
print(f"mean KL of the last steps: {np.mean(losses[-20:]):.4f} nats")

# %% [markdown]
# ## Back
#
# PyTorch saves the tensors, and `runs.import_weights`, or `d3pm import FILE CONFIG --workdir DIR`, makes them
# step 0 of a new run. From there it samples, evaluates and trains as any other. The bounds on the same test
# digits, before and after:

# %%
BACK = Path("runs/back.safetensors")
safetensors.torch.save_file(module.state_dict(), BACK)
shutil.rmtree("runs/back", ignore_errors=True)  # of an earlier execution
runs.import_weights(BACK, run.config, "runs/back")
back = runs.open("runs/back")
for tensor, array in zip(
    (module.state_dict()[name] for name in sorted(module.state_dict())),
    (x for _, x in sorted(d3pm.weights.twin.to_torch(back.params).items())),
    strict=True,
):
    np.testing.assert_array_equal(tensor, array)  # to the bit

test, _ = run.read_split("test", 100)
for name, trained_run in {"trained in JAX": run, "and further in PyTorch": back}.items():
    bound = trained_run.evaluate_on(test)
    print(f"{name}: {bound['bits_per_dim']:.3f} +- {bound['standard_error']:.3f} bits/dim")
