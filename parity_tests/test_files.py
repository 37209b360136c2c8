"""Files that both frameworks read and write: weights to the bit and back, and the noise of a training."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch
from flax import nnx

from d3pm_jax import config, models
from d3pm_jax.data import Description
from d3pm_jax.loop import presampled
from d3pm_jax.parts.build import build
from d3pm_jax.weights import twin as twin_weights
from parity_tests.networks import CASES
from torch_ref import models as torch_models
from torch_ref.runs.presampled import read


@pytest.mark.parametrize("case", CASES)
def test_weights_come_back_from_pytorch_to_the_bit(case: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    network, _, options = CASES[case]
    _, like = nnx.split(nnx.eval_shape(lambda: getattr(models, network)(**options, rngs=nnx.Rngs(0))))
    params = jax.tree.map(lambda x: jnp.asarray(_any_bits(rng, x.shape)), like)
    twin_weights.save(tmp_path / "ours.safetensors", params)
    twin = getattr(torch_models, network)(**options)
    twin.load_state_dict(safetensors.torch.load_file(tmp_path / "ours.safetensors"))
    safetensors.torch.save_file(twin.state_dict(), tmp_path / "theirs.safetensors")
    back = twin_weights.load(tmp_path / "theirs.safetensors", like)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(back), strict=True):
        np.testing.assert_array_equal(np.asarray(a).view(np.uint32), np.asarray(b).view(np.uint32))


def _any_bits(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Finite float32 of any exponent: subnormal, -0 and huge ones too."""
    x = rng.integers(0, 2**32, shape, np.uint32).view(np.float32)
    return np.where(np.isfinite(x), x, np.float32(-0.0))


def test_both_read_the_same_noise(tmp_path: Path) -> None:
    spec = config.Config(
        data=config.Digits(),
        process=config.Uniform(K=5, steps=30, beta=config.Cosine()),
        model=config.UNet(ch=4, ch_mult=(1,), num_res_blocks=1, attn_resolutions=(), groups=1),
        train=config.Train(steps=7, batch_size=6, seed=3),
    )
    for timesteps in (config.LowDiscrepancy(), config.Independent()):
        parts = build(
            dataclasses.replace(spec, timesteps=timesteps), Description((4, 4, 2), 5, kind="image"), 6
        )
        path = tmp_path / "n.array_record"
        presampled.write_noise(parts, 7, path)
        draw = presampled.open_noise(parts, path)
        in_torch = list(read(str(path)))
        assert len(in_torch) == 7
        assert (in_torch[0][0].dtype, in_torch[0][1].dtype) == (torch.int64, torch.float32)
        for i, (t, u) in enumerate(in_torch):
            np.testing.assert_array_equal(t.numpy(), draw(i).t)
            np.testing.assert_array_equal(u.numpy(), draw(i).u)
        assert len(np.unique([u.numpy() for _, u in in_torch])) > 500
