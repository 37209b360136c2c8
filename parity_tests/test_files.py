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

from d3pm_jax import config
from d3pm_jax.config import io as config_io
from d3pm_jax.data import Description
from d3pm_jax.program.loop import presampled
from d3pm_jax.program.parts.build import build
from d3pm_jax.program.parts.completed import complete
from d3pm_jax.runs import exported
from d3pm_jax.weights import twin as twin_weights
from parity_tests.networks import CASES, make_twin, split
from torch_ref.runs import exported as torch_exported
from torch_ref.runs.presampled import read


@pytest.mark.parametrize("case", CASES)
def test_weights_come_back_from_pytorch_to_the_bit(case: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    _, like = split(CASES[case])
    params = jax.tree.map(lambda x: jnp.asarray(_any_bits(rng, x.shape)), like)
    twin_weights.save(tmp_path / "ours.safetensors", params)
    twin = make_twin(CASES[case])
    twin.load_state_dict(safetensors.torch.load_file(tmp_path / "ours.safetensors"))
    safetensors.torch.save_file(twin.state_dict(), tmp_path / "theirs.safetensors")
    back = twin_weights.load(tmp_path / "theirs.safetensors", like)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(back), strict=True):
        np.testing.assert_array_equal(np.asarray(a).view(np.uint32), np.asarray(b).view(np.uint32))


def _any_bits(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Finite float32 of any exponent: subnormal, -0 and huge ones too."""
    x = rng.integers(0, 2**32, shape, np.uint32).view(np.float32)
    return np.where(np.isfinite(x), x, np.float32(-0.0))


UNET = config.UNet(ch=4, ch_mult=(1,), num_res_blocks=0, attn_resolutions=(), groups=1)
# Categories of each place, 2 to 5.
SIZES = tuple(tuple(((i + j) % 4 + 2,) for j in range(4)) for i in range(4))


@pytest.mark.parametrize(
    ("model", "condition", "sizes"),
    [
        (UNET, (3,), SIZES),
        (UNET, (2, 4, 1), None),
        (config.MLP(width=8, num_layers=1, see_time=False), (3,), SIZES),
        (config.Transformer(8, 1, 1, positions="grid"), (2, 4, 1), None),
        (config.Transformer(8, 1, 1, positions="learned"), (), SIZES),
    ],
)
def test_both_build_the_network_of_data_with_conditions(
    model: config.Model, condition: tuple[int, ...], sizes: tuple | None, tmp_path: Path
) -> None:
    description = Description((4, 4, 1), 5, kind="image", condition=condition, sizes=sizes)
    spec = config.Spec(description.shape, 5, None, None, 30, condition=condition, sizes=sizes)
    _, like = nnx.split(nnx.eval_shape(lambda: model.build(spec, nnx.Rngs(0))))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) * 0.2, jnp.float32), like)
    parts = {"model": config_io.to_json(model), "head": config_io.to_json(config.Head())}
    metadata = exported.make_metadata(parts, description, 5, 30, 0, "ema")
    file = tmp_path / "weights.safetensors"
    twin_weights.save(file, params, metadata)

    xt = rng.integers(0, 5 if sizes is None else np.array(sizes), (2, 4, 4, 1))
    t = np.array([1, 30])
    conditions = rng.normal(size=(2, *condition)).astype(np.float32)
    denoise = jax.jit(exported.denoiser(file))
    logits = denoise(xt.astype(np.int32), t.astype(np.int32), condition=conditions)
    with torch.no_grad():
        denoise_in_torch = torch_exported.denoiser(file)
        tensors = [torch.tensor(x) for x in (xt, t, conditions)]
        in_torch = denoise_in_torch(tensors[0], tensors[1], condition=tensors[2])
        of_other_conditions = denoise_in_torch(tensors[0], tensors[1], condition=tensors[2] + 1.0)
    np.testing.assert_allclose(in_torch.numpy(), logits, rtol=1e-5, atol=1e-5)
    possible = np.isfinite(logits)
    assert np.abs(of_other_conditions.numpy()[possible] - in_torch.numpy()[possible]).max() > 1e-2

    no_file = tmp_path / "file.txt"
    no_file.write_text("no weights")
    for wrong_file, message in ((tmp_path, "is a folder"), (no_file, "is not a safetensors file")):
        with pytest.raises(ValueError, match=f"{message}.*: pass the file that d3pm export RUN --to torch"):
            torch_exported.denoiser(wrong_file)
    with pytest.raises(ValueError, match="is a folder: pass the file of weights"):
        exported.denoiser(tmp_path)
    with pytest.raises(ValueError, match=r"xt is torch.float32: pass integers, categories in 0\.\.4"):
        denoise_in_torch(tensors[0].float(), tensors[1], condition=tensors[2])
    with pytest.raises(ValueError, match=r"xt is torch.int64 in .*: pass categories in 0\.\.4"):
        denoise_in_torch(tensors[0] + 5, tensors[1], condition=tensors[2])
    if sizes is not None and model is not UNET:  # which knows the largest alone
        smallest = np.argwhere(np.array(sizes) < 4)[0]
        wrong = tensors[0].clone()
        wrong[(0, *smallest.tolist())] = 3
        with pytest.raises(ValueError, match="xt holds a category that its place lacks: the places have"):
            denoise_in_torch(wrong, tensors[1], condition=tensors[2])
    with pytest.raises(ValueError, match=r"t is 1: pass a tensor \[2\], a step for each of xt"):
        denoise_in_torch(tensors[0], 1, condition=tensors[2])


def test_both_predict_no_category_between_data_and_mask(tmp_path: Path) -> None:
    model = config.Transformer(width=8, num_layers=1, num_heads=1, tied=True)
    description = Description((6,), 5)
    params = nnx.state(model.build(config.Spec((6,), 8, None, None, 30), nnx.Rngs(0)), nnx.Param)
    head = config.Head(projected=True)
    parts = {"model": config_io.to_json(model), "head": config_io.to_json(head)}
    file = tmp_path / "weights.safetensors"
    twin_weights.save(file, params, exported.make_metadata(parts, description, 8, 30, 0, "ema", 7))
    xt = np.array([[0, 1, 2, 3, 4, 7]])
    logits = exported.denoiser(file)(xt, np.array([3]))
    with torch.no_grad():
        in_torch = torch_exported.denoiser(file)(torch.tensor(xt), torch.tensor([3]))
    np.testing.assert_allclose(in_torch.numpy(), logits, rtol=1e-5, atol=1e-6)
    assert np.flatnonzero(np.isneginf(logits).all(axis=(0, 1))).tolist() == [5, 6, 7]


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_a_denoiser_in_torch_reads_no_values(tmp_path: Path) -> None:
    model = config.Transformer(width=8, num_layers=1, num_heads=1)
    description = Description((6,), 5)
    spec = config.Spec(description.shape, 5, None, None, 30)
    params = nnx.state(model.build(spec, nnx.Rngs(0)), nnx.Param)
    parts = {"model": config_io.to_json(model), "head": config_io.to_json(config.Head())}
    file = tmp_path / "weights.safetensors"
    twin_weights.save(file, params, exported.make_metadata(parts, description, 5, 30, 0, "ema"))
    denoise = torch_exported.denoiser(file)
    xt = torch.arange(12).reshape(2, 6) % 5
    t = torch.tensor([1, 30])
    with torch.no_grad():
        logits = denoise(xt, t)
        compiled = torch.compile(denoise, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(xt, t), logits)
        assert denoise(xt[:0], t[:0]).shape == (0, 6, 5)
        mapped = torch.vmap(denoise)(xt[None], t[None])
        torch.testing.assert_close(mapped[0], logits)
        for shift, limits in ((1, r"1\.\.5"), (-1, r"-1\.\.3")):
            with pytest.raises(
                ValueError, match=rf"xt is torch.int64 in {limits}: pass categories in 0\.\.4"
            ):
                denoise(xt + shift, t)


def test_both_read_the_same_noise(tmp_path: Path) -> None:
    spec = config.Config(
        data=config.Digits(),
        process=config.Uniform(K=5, steps=30, beta=config.Cosine()),
        model=config.UNet(ch=4, ch_mult=(1,), num_res_blocks=1, attn_resolutions=(), groups=1),
        train=config.Train(steps=7, batch_size=6, seed=3),
    )
    for timesteps in (config.LowDiscrepancy(), config.Independent()):
        of_times = dataclasses.replace(spec, timesteps=timesteps)
        parts = build(complete(of_times, Description((4, 4, 2), 5, kind="image")), 6)
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


@pytest.mark.slow
def test_a_network_of_blocks_predicts_each_from_those_before_it(tmp_path: Path) -> None:
    """With padding; a network that was trained by blocks and called without a layout would see all places."""
    model = config.Transformer(8, 1, 1, see_time=False)
    description = Description((6,), 4, kind="text", symbols=("a", "b", "c", "d"), padded=True)
    spec = config.Spec(description.shape, 5, None, None, 30)
    _, like = nnx.split(nnx.eval_shape(lambda: model.build(spec, nnx.Rngs(0))))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) * 0.2, jnp.float32), like)
    parts = {"model": model, "head": config.Head(), "loss": config.Blocks(block=2)}
    metadata = exported.make_metadata(
        {name: config_io.to_json(part) for name, part in parts.items()}, description, 5, 30, 0, "ema", 4
    )
    file = tmp_path / "weights.safetensors"
    twin_weights.save(file, params, metadata)

    xt = rng.integers(0, 4, (2, 6))
    other = np.where(np.arange(6) < 4, xt, (xt + 1) % 4)
    t = np.array([1, 30])
    weight = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]], np.float32)
    denoise = jax.jit(exported.denoiser(file))
    logits, logits_of_other = (
        np.asarray(denoise(x.astype(np.int32), t.astype(np.int32), weight=weight)) for x in (xt, other)
    )
    with torch.no_grad():
        tensors = [torch.tensor(x) for x in (xt, t, weight)]
        in_torch = torch_exported.denoiser(file)(tensors[0], tensors[1], weight=tensors[2])
    np.testing.assert_allclose(in_torch.numpy(), logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(logits_of_other[:, :4], logits[:, :4], rtol=1e-6)
    assert np.abs(logits_of_other[:, 4:, :4] - logits[:, 4:, :4]).max() > 1e-2
