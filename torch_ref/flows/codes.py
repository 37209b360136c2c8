"""Writes categories as digits. Every code means a symbol, code mod K."""

import torch
from torch import Tensor

from torch_ref.checks import declared


@declared(K="two_or_more", base="two_or_more")
def count_digits(K: int, base: int) -> int:
    """Returns the smallest d with base^d >= K: one more than how often K - 1 can be divided by base."""
    digits = 1
    last = (K - 1) // base
    while last > 0:
        digits += 1
        last = last // base
    return digits


@declared(code="*S index", base="two_or_more", digits="count")
def to_digits(code: Tensor, base: int, digits: int) -> Tensor:
    """Divides by the base again and again; the remainders are the digits from the last to the first."""
    remainders = []
    for _ in range(digits):
        remainders.append(code % base)
        code = code // base
    return torch.stack(remainders[::-1], dim=-1)


@declared(digits="*S d index", base="two_or_more")
def from_digits(digits: Tensor, base: int) -> Tensor:
    """code <- base code + digit, from the first digit to the last."""
    code = torch.zeros_like(digits[..., 0])
    for i in range(digits.shape[-1]):
        code = base * code + digits[..., i]
    return code


@declared(x="*S categories", K="two_or_more", num_codes="two_or_more", u="*S noise")
def draw_code(x: Tensor, K: int, num_codes: int, u: Tensor) -> tuple[Tensor, Tensor]:
    """Returns number floor(u n) of the n codes that mean x, and log n."""
    means_x = from_code(torch.arange(num_codes), K) == x[..., None]  # [*S, num_codes]
    n = means_x.sum(dim=-1)
    wide_u = u.to(torch.promote_types(u.dtype, torch.float32))  # 16 bits hold no large n
    turn = torch.minimum(torch.floor(wide_u * n).long(), n - 1)

    # The code at which so many codes of x have gone by, itself included.
    code = (means_x.cumsum(dim=-1) == turn[..., None] + 1).int().argmax(dim=-1)
    return code, torch.log(n.to(wide_u.dtype)).to(u.dtype)


@declared(code="*S index", K="two_or_more")
def from_code(code: Tensor, K: int) -> Tensor:
    """code mod K."""
    return code % K
