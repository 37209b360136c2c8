"""Builds MNISTScoreNet, the U-Net of a Dirichlet diffusion score model on binary MNIST, as logits of x_0."""

from math import pi

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_ref.models.backbone import Backbone, channels_first
from torch_ref.models.layers import Style, class_embedding


class ScoreNet(Backbone):
    """xt [B, H, W, C], t [B], label [B] -> [B, H, W, C, K]; parameters as in d3pm_jax.models.ScoreNet.

    Its initial weights are PyTorch's: load others, for example those of `d3pm_jax.weights.twin.to_torch`.
    """

    def __init__(
        self,
        K: int,
        channels: int,
        max_time: int,
        ch: int = 32,
        ch_mult: tuple[int, ...] = (1, 2, 2),
        attn: tuple[int, ...] = (1,),
        num_res_blocks: int = 2,
        dropout: float = 0.1,
        time_dependent_weights: tuple[float, ...] | None = None,
        groups: int = 32,
        num_classes: int | None = None,
        num_heads: int = 1,
    ):
        style = Style(1e-5, groups, num_heads, dropout, 4 * ch, num_classes is not None, down_pads=(1, 1))
        super().__init__(style, channels * K, channels * K, ch, ch_mult, num_res_blocks, attn, margin=2)
        self.K = K
        self.max_time = max_time
        self.num_classes = num_classes
        self.time_dependent_weights = time_dependent_weights
        self.frequencies = nn.Parameter(30.0 * torch.randn(2 * ch), requires_grad=False)
        self.temb = nn.Linear(4 * ch, 4 * ch)
        self.class_emb = None
        if num_classes is not None:
            self.class_emb = nn.Linear(num_classes, 4 * ch)

    def forward(self, xt: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        angles = (t / self.max_time)[:, None] * self.frequencies * (2 * pi)
        temb = self.temb(torch.cat([angles.sin(), angles.cos()], dim=1).to(self.temb.weight.dtype))
        cemb = class_embedding(self.class_emb, label, len(xt))
        logits = self.run(channels_first(F.one_hot(xt, self.K)), temb, cemb)
        logits = logits.movedim(1, -1).reshape(*xt.shape, self.K)
        logits = logits - logits.mean(dim=-1, keepdim=True)
        if self.time_dependent_weights is None:
            return logits
        return logits * self._weight(t)

    def _weight(self, t: Tensor) -> Tensor:
        """Interpolates the weights, number i = 1..n at t = i T / n, linearly; constant before the first."""
        weights = torch.tensor(self.time_dependent_weights, device=t.device)
        at = t * len(weights) / self.max_time - 1.0
        # A gradient by t is that of the interval on the right, at the last number of the one on the left.
        lower = at.floor().long().clamp(0, len(weights) - 2)
        between = weights[lower] + (at - lower) * (weights[lower + 1] - weights[lower])
        weight = torch.where(at < 0.0, weights[0], between)  # [B]
        return weight[:, None, None, None, None]
