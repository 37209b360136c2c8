"""The U-Net of the official D3PM code in plain PyTorch, on its nested arrays, written from its layout.

Nothing here is of d3pm_jax or torch_ref. Images have their channels last, as in the program.
"""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from tests.contrib.originals import sinusoids


def random_params(rng, channels, outputs, ch, mult, blocks, attends, heads, classes=None):
    """Nested arrays as flax.serialization has them, in float32 as the program trains."""

    def drawn(*shape):
        return (rng.normal(size=shape) * 0.8 / math.sqrt(np.prod(shape[:-1]))).astype("f")

    def small(*shape):
        return (0.2 * rng.normal(size=shape)).astype("f")

    def conv(a, b):
        return {"kernel": drawn(3, 3, a, b), "bias": small(b)}

    def dense(a, b):
        return {"kernel": drawn(a, b), "bias": small(b)}

    def norm(n):
        return {"scale": 1 + small(n), "bias": small(n)}

    def block(a, b):
        layers = {"norm1": norm(a), "conv1": conv(a, b), "temb_proj": dense(4 * ch, b)}
        layers |= {"norm2": norm(b), "conv2": conv(b, b)}
        layers |= {"y_proj": dense(4 * ch, b)} if classes else {}
        return layers | ({"nin_shortcut": dense(a, b)} if a != b else {})

    def attention(n):
        layers = {
            name: {"kernel": drawn(n, heads, n // heads), "bias": small(heads, n // heads)} for name in "qkv"
        }
        return layers | {
            "norm": norm(n),
            "proj_out": {"kernel": drawn(heads, n // heads, n), "bias": small(n)},
        }

    params = {"conv_in": conv(channels, ch), "dense0": dense(ch, 4 * ch), "dense1": dense(4 * ch, 4 * ch)}
    params |= {"class_emb": dense(classes, 4 * ch)} if classes else {}
    n = ch
    skips = [ch]
    last = len(mult) - 1
    for i, m in enumerate(mult):
        for j in range(blocks):
            params[f"down_{i}.block_{j}"] = block(n, ch * m)
            n = ch * m
            params |= {f"down_{i}.attn_{j}": attention(n)} if i in attends else {}
            skips.append(n)
        if i < last:
            params[f"down_{i}.downsample"] = conv(n, n)
            skips.append(n)
    params |= {"mid.block_1": block(n, n), "mid.attn_1": attention(n), "mid.block_2": block(n, n)}
    for i in reversed(range(last + 1)):
        for j in range(blocks + 1):
            params[f"up_{i}.block_{j}"] = block(n + skips.pop(), ch * mult[i])
            n = ch * mult[i]
            params |= {f"up_{i}.attn_{j}": attention(n)} if i in attends else {}
        if i:
            params[f"up_{i}.upsample"] = conv(n, n)
    return params | {"norm_out": norm(n), "conv_out": conv(n, channels * outputs)}


def dense(p, x):
    kernel = p["kernel"].reshape(x.shape[-1], -1)
    return x @ kernel + p["bias"].reshape(-1)


def conv(p, x, stride=1):
    x = x.permute(0, 3, 1, 2)
    x = F.pad(x, [0, 1, 0, 1] if stride == 2 else [1, 1, 1, 1])
    return F.conv2d(x, p["kernel"].permute(3, 2, 0, 1), p["bias"], stride).permute(0, 2, 3, 1)


def norm(p, x):
    normed = F.group_norm(x.permute(0, 3, 1, 2), 32, p["scale"], p["bias"], 1e-6)
    return normed.permute(0, 2, 3, 1)


def block(p, x, temb, y):
    h = conv(p["conv1"], F.silu(norm(p["norm1"], x))) + dense(p["temb_proj"], F.silu(temb))[:, None, None]
    if y is not None:
        h = h + dense(p["y_proj"], y)[:, None, None]
    h = conv(p["conv2"], F.silu(norm(p["norm2"], h)))
    return h + (dense(p["nin_shortcut"], x) if "nin_shortcut" in p else x)


def attention(p, x):
    B, H, W, C = x.shape
    num_heads, head_dim = p["q"]["bias"].shape
    h = norm(p["norm"], x)
    q = dense(p["q"], h).reshape(B, H * W, num_heads, head_dim)
    k = dense(p["k"], h).reshape(B, H * W, num_heads, head_dim)
    v = dense(p["v"], h).reshape(B, H * W, num_heads, head_dim)
    weights = (torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(head_dim)).softmax(-1)
    h = torch.einsum("bhqk,bkhd->bqhd", weights, v).reshape(B, H, W, C)
    return x + (h @ p["proj_out"]["kernel"].reshape(C, C) + p["proj_out"]["bias"])


def logits(params, x, t, label, K, max_time, logistic):
    """x [B, H, W, C] and t from 0 -> logits [B, H, W, C, K] in float64."""
    tree = {name: as_double(p) for name, p in params.items()}
    temb = dense(tree["dense0"], sinusoids(t * 1000 / max_time, tree["dense0"]["kernel"].shape[0]))
    temb = dense(tree["dense1"], F.silu(temb))
    y = None
    if label is not None:
        y = dense(tree["class_emb"], F.one_hot(label, tree["class_emb"]["kernel"].shape[0]).double())

    def step(at, h):
        h = block(tree[at], h, temb, y)
        attn = at.replace("block", "attn")
        return attention(tree[attn], h) if attn in tree else h

    h = conv(tree["conv_in"], x.double() / 127.5 - 1)
    hs = [h]
    levels = sum(f"up_{i}.block_0" in tree for i in range(9))
    for i in range(levels):
        j = 0
        while f"down_{i}.block_{j}" in tree:
            h = step(f"down_{i}.block_{j}", h)
            j = j + 1
            hs.append(h)
        if f"down_{i}.downsample" in tree:
            h = conv(tree[f"down_{i}.downsample"], h, 2)
            hs.append(h)
    h = step("mid.block_2", step("mid.block_1", h))
    for i in reversed(range(levels)):
        j = 0
        while f"up_{i}.block_{j}" in tree:
            h = step(f"up_{i}.block_{j}", torch.cat([h, hs.pop()], -1))
            j = j + 1
        if f"up_{i}.upsample" in tree:
            h = conv(tree[f"up_{i}.upsample"], h.repeat_interleave(2, 1).repeat_interleave(2, 2))
    h = conv(tree["conv_out"], F.silu(norm(tree["norm_out"], h)))
    if not logistic:
        return h.reshape(*x.shape, K) + F.one_hot(x, K)
    loc, log_scale = h.chunk(2, -1)
    return bins(torch.tanh(loc + x.double() / 127.5 - 1), log_scale, K)


def bins(loc, log_scale, K):
    """The log of what a logistic distribution has in each of K bins, with the epsilon of the program."""
    centres = torch.linspace(-1, 1, K, dtype=torch.float64)
    inverse = torch.exp(2 - log_scale)[..., None]
    z = (centres - loc[..., None]) * inverse
    half = inverse / (K - 1)
    above = F.logsigmoid(z + half)
    below = F.logsigmoid(z - half)
    return above + torch.log(1 - torch.exp(below - above) + 1e-6)


def as_double(node) -> Any:
    if isinstance(node, dict):
        return {name: as_double(x) for name, x in node.items()}
    return torch.tensor(node).double()
