"""Numbers that the observer keeps of tensors: norms, products, hashes."""

import zlib

import torch
from torch import Tensor

HASHED_ENTRIES = 1024


def product(parameter: Tensor, update: Tensor) -> float:
    """<gradient, update>, real."""
    gradient = parameter.grad
    if gradient is None:
        return 0.0
    gradient = gradient.to_dense() if gradient.is_sparse else gradient
    return float(
        (gradient.conj() * update).real.sum()
        if gradient.is_complex()
        else (gradient * update).sum()
    )


def norm_of(tensor: Tensor | None) -> Tensor | None:
    """Norm, float64 []; None for None."""
    if tensor is None:
        return None
    values = tensor.detach()
    if values.is_sparse:
        values = values.coalesce().values()
    norm: Tensor = torch.linalg.vector_norm(values)
    return norm.double()


def zeros_of(tensor: Tensor | None) -> Tensor | None:
    """Share of the entries that are exactly zero, float64 []; None for None.

    Entries that a sparse tensor leaves out are zero.
    """
    if tensor is None:
        return None
    values = tensor.detach()
    if values.is_sparse:
        values = values.coalesce().values()
    return 1 - torch.count_nonzero(values).double() / max(1, tensor.numel())


def stacked(norms: list[Tensor | None]) -> Tensor:
    """float64 [P] on the CPU; -1 for None."""
    if not norms:
        return torch.empty(0, dtype=torch.float64)
    nothing = torch.tensor(-1.0, dtype=torch.float64)
    device = next((n.device for n in norms if n is not None), nothing.device)
    return torch.stack([(nothing if n is None else n).to(device) for n in norms]).cpu()


def transformed() -> bool:
    """Whether a transform of `torch.func` runs: its tensors have no numbers to look at."""
    return torch._C._are_functorch_transforms_active()


def hash_of(tensor: Tensor) -> int:
    """Of shape, dtype and up to 1024 entries: enough to tell batches apart."""
    flat = tensor.detach().flatten()
    entries = flat[:: max(1, flat.numel() // HASHED_ENTRIES)].cpu().contiguous()
    content = entries.resolve_conj().view(torch.uint8).numpy().tobytes()
    return zlib.crc32(content, zlib.crc32(repr((tensor.shape, tensor.dtype)).encode()))
