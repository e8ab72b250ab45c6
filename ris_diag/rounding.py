"""What rounding explains: the limit of a difference between two runs, and the difference itself."""

import math

import torch
from torch import Tensor, nn

LIKELY = 8.0  # lambda of the bound


def limit_of(count: int, unit: float, change: float) -> float:
    """Largest difference that rounding explains, relative to the largest entry.

        2 * lambda * sqrt(n) * max(u, d)

    - n, roundings in a row: the lengths of all sums up to here.
    - u, the unit roundoff: half of `torch.finfo(dtype).eps` of the coarsest dtype up to here.
    - lambda = 8: a sum of n terms is off by lambda sqrt(n) u of its terms at most, but for a
      probability of 2 n exp(-lambda^2 / 2) (Higham and Mary, A New Approach to Probabilistic
      Rounding Error Analysis, SIAM J. Sci. Comput. 41(5), 2019, theorem 2.4).
    - d, the change where every weight and input changes by its last digit. The error of a result
      is the condition number times that of its data (Higham, Accuracy and Stability of Numerical
      Algorithms, 2nd ed., section 1.6): d is the condition, measured in units of u.
    - 2, as both runs round.

    Args:
        count: n. unit: u. change: d, inf where it can't be told.
    """
    return 2 * LIKELY * math.sqrt(max(1, count)) * max(unit, change)


def longest_sum(module: nn.Module, tensors: list[Tensor]) -> int:
    """Terms of the longest sum that one call of a module can make, forward or backward.

    The inputs of a unit and the units of an input by the module's own matrices, and every axis of
    what goes in and out: a mean, a norm, a softmax, the gradient of a weight over the batch.
    """
    matrices = [p for p in module.parameters(recurse=False) if p.ndim > 1]
    fans = [p.numel() // p.shape[k] for p in matrices for k in range(2)]
    return max([1, *fans, *(size for tensor in tensors for size in tensor.shape)])


def unit_of(values: list[Tensor]) -> float:
    """Unit roundoff of the coarsest dtype; 0 without a tensor."""
    return max((torch.finfo(value.dtype).eps / 2 for value in values), default=0.0)


def largest_of(values: list[Tensor]) -> float:
    """The largest finite entry."""
    sizes = [value[value.isfinite()].abs().double() for value in values]
    return max((float(size.max()) for size in sizes if size.numel()), default=0.0)


def difference(first: list[Tensor], second: list[Tensor], floor: float = 0.0) -> float:
    """Largest difference of an entry over the largest entry of its tensor in the first run.

    Args:
        floor: what a tensor's largest entry counts as at least.

    Returns:
        the largest of all tensors; inf where shapes differ, or only one of two entries is finite.
        In float16, which a GradScaler makes overflow on purpose, infinities of the first run
        aren't compared: what lies at the border may be on either side of it.
    """
    if [value.shape for value in first] != [value.shape for value in second]:
        return math.inf
    pairs = zip(first, second, strict=True)
    return max((_of_tensors(a, b, floor) for a, b in pairs), default=0.0)


def _of_tensors(first: Tensor, second: Tensor, floor: float) -> float:
    finite, known = first.isfinite(), second.isfinite()
    overflows = first.dtype == torch.float16 and not bool(finite.all())
    if not (overflows or torch.equal(finite, known)):
        return math.inf
    finite = finite & known
    wide = torch.complex128 if first.is_complex() or second.is_complex() else torch.float64
    a, b = first[finite].to(wide), second[finite].to(wide)
    apart = float((a - b).abs().max()) if a.numel() else 0.0
    if apart == 0:
        return 0.0
    scale = max(float(a.abs().max()), floor)
    return apart / scale if scale > 0 else math.inf
