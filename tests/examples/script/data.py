import math

import torch
from torch.utils.data import TensorDataset


def moons(samples: int) -> TensorDataset:
    angle = math.pi * torch.rand(samples)
    y = torch.randint(2, (samples,))
    x = torch.stack([angle.cos() + y, (1 - 2 * y) * angle.sin() + 0.5 * y], dim=1)
    return TensorDataset(x + 0.1 * torch.randn_like(x), y)
