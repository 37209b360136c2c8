"""Builds the U-Net of D3PM (appendix B.2), categories in, one vector per pixel out."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_ref.models.backbone import Backbone, channels_first, padded_size
from torch_ref.models.layers import (
    Style,
    check_condition,
    check_enlarges,
    class_embedding,
    enlarge,
    time_embedding,
)


class UNet(Backbone):
    """xt [B, H, W, C], t [B], label [B] -> [B, H, W, C, outputs]; parameters as in d3pm_jax.models.UNet.

    A network for a condition of shape (D,) or (h, w, c) takes it too, [B, D] or [B, h, w, c].
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
        condition: tuple[int, ...] | None = None,
    ):
        if condition is not None:
            _check_condition_shape(condition, size)
        style = Style(1e-6, groups, num_heads, dropout, 4 * ch, num_classes is not None, down_pads=(0, 1))
        style = style._replace(channels_per_group=channels_per_group, attention_eps=attention_eps)
        n_in = channels
        if onehot_input:
            n_in = channels * (1 + K)
        # A condition is an image that is joined to the input, or else a vector.
        joins_condition = condition is not None and len(condition) == 3
        if condition is not None and joins_condition:
            n_in += condition[-1]
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
        self.condition_shape = condition
        self.joins_condition = joins_condition
        self.input_range = input_range or (0, K - 1)
        self.temb1 = nn.Linear(ch, 4 * ch)
        self.temb2 = nn.Linear(4 * ch, 4 * ch)
        self.class_emb = None
        if num_classes is not None:
            self.class_emb = nn.Linear(num_classes, 4 * ch)
        self.condition = None
        if condition is not None and not joins_condition:
            self.condition = nn.Linear(condition[0], 4 * ch)

    def forward(
        self, xt: Tensor, t: Tensor, label: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        check_condition(condition, self.condition_shape, len(xt))
        embedded = time_embedding(t, self.ch, self.max_time).to(self.temb1.weight.dtype)
        temb = self.temb2(F.silu(self.temb1(embedded)))
        if condition is not None and self.condition is not None:
            temb = temb + self.condition(condition.to(temb.dtype))
        cemb = class_embedding(self.class_emb, label, len(xt))
        x = self._input(xt)
        if condition is not None and self.joins_condition:
            enlarged = enlarge(condition.to(x.dtype), *xt.shape[1:3])
            x = torch.cat([x, channels_first(enlarged)], dim=1)
        output = self.run(x, temb, cemb).movedim(1, -1)
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


def _check_condition_shape(condition: tuple[int, ...], size: int | tuple[int, int]) -> None:
    """Raises ValueError unless it is the shape of a vector, or of an image that can be enlarged to size."""
    if len(condition) not in (1, 3) or min(condition) < 1:
        raise ValueError(
            f"condition = {condition}: it must be a vector (D,) or an image (h, w, c), of sizes of at least 1"
        )
    if isinstance(size, int):
        size = (size, size)
    if len(condition) == 3:
        check_enlarges(condition[:2], size)
