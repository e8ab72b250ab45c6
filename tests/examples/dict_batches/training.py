"""Predicts the mean of a masked sequence; batches are dicts."""

import torch
from torch import Tensor, nn

Batch = dict[str, Tensor]


class MaskedMean(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(4, 16), nn.GELU())
        self.read = nn.Linear(16, 1)

    def forward(self, batch: Batch) -> Tensor:
        mask = batch["mask"].unsqueeze(-1)
        pooled = (self.encode(batch["sequence"]) * mask).sum(1) / mask.sum(1)
        prediction: Tensor = self.read(pooled).squeeze(-1)
        return prediction


def make_batch(samples: int, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    sequence = torch.randn(samples, 6, 4, generator=generator)
    length = torch.randint(2, 7, (samples, 1), generator=generator)
    mask = (torch.arange(6) < length).float()
    target = 1 + (sequence.mean(-1) * mask).sum(1) / mask.sum(1)
    return {"sequence": sequence, "mask": mask, "target": target}


def training_loss(model: nn.Module, batch: Batch) -> Tensor:
    return nn.functional.smooth_l1_loss(model(batch), batch["target"])


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.01)
