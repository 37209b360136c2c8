"""Builds the U-Net of D3PM (appendix B.2), categories in, one vector per pixel out."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_ref.models.backbone import Backbone, channels_first, padded_size
from torch_ref.models.layers import Style, class_embedding, time_embedding


class UNet(Backbone):
    """xt [B, H, W, C], t [B], label [B] -> [B, H, W, C, outputs]; parameters as in d3pm_jax.models.UNet.

    Its initial weights are PyTorch's: load others, for example those of `d3pm_jax.weights.twin.to_torch`.
    """

    def __init__(
        self,
        K: int,
        channels: int,
        size: int | tuple[int, int],
        max_time: int,
        ch: int = 128,
        ch_mult: tuple[int, ...] = (1, 2, 2, 2),
        num_res_blocks: int = 2,
        attn_resolutions: tuple[int, ...] = (16,),
        dropout: float = 0.1,
        groups: int = 32,
        onehot_input: bool = False,
        outputs: int | None = None,
        num_classes: int | None = None,
        num_heads: int = 1,
        *,
        channels_per_group: int | None = None,
        attention_eps: float | None = None,
        input_range: tuple[float, float] | None = None,
    ):
        style = Style(1e-6, groups, num_heads, dropout, 4 * ch, num_classes is not None, down_pads=(0, 1))
        style = style._replace(channels_per_group=channels_per_group, attention_eps=attention_eps)
        n_in = channels
        if onehot_input:
            n_in = channels * (1 + K)
        n_out = channels * K
        if outputs is not None:
            n_out = channels * outputs
        longer_side = size if isinstance(size, int) else max(size)
        first = padded_size(longer_side, len(ch_mult))
        attn_levels = [i for i in range(len(ch_mult)) if first // 2**i in attn_resolutions]
        super().__init__(style, n_in, n_out, ch, ch_mult, num_res_blocks, attn_levels)
        self.K = K
        self.ch = ch
        self.max_time = max_time
        self.onehot_input = onehot_input
        self.outputs = outputs
        self.num_classes = num_classes
        self.input_range = input_range or (0, K - 1)
        self.temb1 = nn.Linear(ch, 4 * ch)
        self.temb2 = nn.Linear(4 * ch, 4 * ch)
        self.class_emb = None
        if num_classes is not None:
            self.class_emb = nn.Linear(num_classes, 4 * ch)

    def forward(self, xt: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        embedded = time_embedding(t, self.ch, self.max_time).to(self.temb1.weight.dtype)
        temb = self.temb2(F.silu(self.temb1(embedded)))
        cemb = class_embedding(self.class_emb, label, len(xt))
        output = self.run(self._input(xt), temb, cemb).movedim(1, -1)
        if self.outputs is None:
            return output.reshape(*xt.shape, self.K)
        return torch.stack(output.chunk(self.outputs, dim=-1), dim=-1)

    def _input(self, xt: Tensor) -> Tensor:
        """Returns categories as numbers in [-1, 1], and one-hot where asked for, [B, channels, H, W]."""
        least, greatest = self.input_range
        scaled = 2 * (xt.to(torch.get_default_dtype()) - least) / (greatest - least) - 1
        if not self.onehot_input:
            return channels_first(scaled)
        return torch.cat([channels_first(scaled), channels_first(F.one_hot(xt, self.K))], dim=1)
