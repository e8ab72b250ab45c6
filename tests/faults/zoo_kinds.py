"""Trainings that give an optimiser and a loss: kinds of batches, losses and tasks."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ris_diag import Case, Declared, Losses, Progress
from tests.faults.zoo_parts import (
    adam,
    classes,
    fixed,
    generator,
    healthy,
    images,
    loader_of,
    mlp,
    regression,
    supervised,
    tokens,
)


class FineTuned(nn.Module):
    """A head on a backbone whose weights are frozen."""

    def __init__(self, backbone: nn.Module, features: int, outputs: int) -> None:
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(features, outputs)
        self.backbone.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(self.backbone(x))
        return output


class FrozenStatistics(FineTuned):
    """The same with the backbone's batch norm kept in eval mode."""

    def train(self, mode: bool = True) -> "FrozenStatistics":
        super().train(mode)
        self.backbone.eval()
        return self


@healthy
def frozen_backbone() -> Case:
    return supervised(
        "frozen_backbone",
        lambda: FineTuned(nn.Sequential(nn.Linear(8, 64), nn.ReLU()), 64, 4),
        classes,
        F.cross_entropy,
        optimizer=adam(3e-2),
        declared=Declared(frozen=("backbone.*",)),
    )


@healthy
def frozen_backbone_in_the_optimiser() -> Case:
    return supervised(
        "frozen_backbone_in_the_optimiser",
        lambda: FineTuned(nn.Sequential(nn.Linear(8, 64), nn.ReLU()), 64, 1),
        regression,
        F.mse_loss,
        optimizer=lambda model: torch.optim.AdamW(model.parameters(), lr=3e-2, weight_decay=0.01),
        declared=Declared(frozen=("backbone.*",)),
    )


@healthy
def frozen_batch_norm() -> Case:
    def model() -> nn.Module:
        backbone = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
        return FrozenStatistics(backbone, 288, 3)

    return supervised(
        "frozen_batch_norm",
        model,
        images,
        F.cross_entropy,
        optimizer=adam(3e-3),
        declared=Declared(frozen=("backbone.*",)),
    )


@healthy
def autoencoder() -> Case:
    def data(split: str, seed: int, size: int) -> Tensor:
        return torch.randn(size, 3, generator=generator(split, seed)) @ fixed(3, 16)

    return Case(
        name="autoencoder",
        model=lambda: nn.Sequential(
            nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 3), nn.Linear(3, 32), nn.ReLU(),
            nn.Linear(32, 16),
        ),
        batch=data,
        loss=lambda model, batch, progress: F.mse_loss(model(batch), batch),
        optimizer=adam(1e-2),
        loader=loader_of(data),
        predict=lambda model, batch: model(batch),
    )  # fmt: skip


@healthy
def variational_autoencoder() -> Case:
    class Variational(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = mlp(16, 32, 4), mlp(2, 32, 16)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            mean, logarithm = self.encoder(x).chunk(2, 1)
            noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
            return self.decoder(mean + noise * (logarithm / 2).exp()), mean, logarithm

    def data(split: str, seed: int, size: int) -> Tensor:
        return torch.randn(size, 2, generator=generator(split, seed)) @ fixed(2, 16) + fixed(16)

    def loss(model: nn.Module, batch: Tensor, progress: Progress) -> Losses:
        output, mean, logarithm = model(batch)
        reconstruction = F.mse_loss(output, batch)
        divergence = 0.5 * (mean.square() + logarithm.exp() - 1 - logarithm).sum(1).mean()
        terms = {"reconstruction": reconstruction, "divergence": divergence}
        return Losses(total=reconstruction + 0.01 * divergence, terms=terms)

    return Case(
        name="variational_autoencoder",
        model=Variational,
        batch=data,
        loss=loss,
        optimizer=adam(1e-2),
        predict=lambda model, batch: model(batch)[0],
        declared=Declared(weights={"reconstruction": 1.0, "divergence": 0.01}),
    )


@healthy
def multi_task() -> Case:
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Sequential(nn.Linear(8, 32), nn.ReLU())
            self.value, self.sign = nn.Linear(32, 1), nn.Linear(32, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            hidden = self.trunk(x)
            return self.value(hidden), self.sign(hidden)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor], progress: Progress) -> Losses:
        x, y = batch
        value, sign = model(x)
        terms = {
            "value": F.mse_loss(value, y),
            "sign": F.binary_cross_entropy_with_logits(sign, (y > 0).float()),
        }
        return Losses(total=terms["value"] + 0.5 * terms["sign"], terms=terms)

    return Case(
        name="multi_task",
        model=TwoHeads,
        batch=regression,
        loss=loss,
        optimizer=adam(1e-2),
        loader=loader_of(regression),
        predict=lambda model, batch: model(batch[0])[0],
        declared=Declared(weights={"value": 1.0, "sign": 0.5}, learning_rate=1e-2),
    )


@healthy
def sparse_embedding_bag() -> Case:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bag, self.head = nn.EmbeddingBag(50, 16, sparse=True), nn.Linear(16, 1)

        def forward(self, words: Tensor) -> Tensor:
            output: Tensor = self.head(self.bag(words))
            return output

    def data(split: str, seed: int, size: int) -> tuple[Tensor, Tensor]:
        words = torch.randint(50, (size, 6), generator=generator(split, seed))
        return words, fixed(50)[words].mean(1, keepdim=True)

    return supervised(
        "sparse_embedding_bag",
        Bag,
        data,
        F.mse_loss,
        optimizer=lambda model: [
            torch.optim.SparseAdam(model.get_submodule("bag").parameters(), lr=3e-2),
            torch.optim.Adam(model.get_submodule("head").parameters(), lr=1e-2),
        ],
    )


@healthy
def model_returns_its_loss() -> Case:
    @dataclass
    class Output:
        logits: Tensor
        loss: Tensor | None = None

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(16, 16), nn.Linear(16, 16)

        def forward(self, *, input_ids: Tensor, labels: Tensor | None = None) -> Output:
            logits = self.head(self.embedding(input_ids))
            if labels is None:
                return Output(logits)
            return Output(logits, F.cross_entropy(logits.flatten(0, 1), labels.flatten()))

    def data(split: str, seed: int, size: int) -> dict[str, Tensor]:
        row = tokens(split, seed, size)
        return {"input_ids": row[:, :-1], "labels": row[:, 1:]}

    return Case(
        name="model_returns_its_loss",
        model=Classifier,
        batch=data,
        loss=lambda model, batch, progress: model(**batch).loss,
        optimizer=lambda model: torch.optim.AdamW(model.parameters(), lr=2e-2),
        loader=loader_of(data),
        predict=lambda model, batch: model(input_ids=batch["input_ids"]).logits,
    )


@healthy
def physics_informed() -> Case:
    """u'' = -pi^2 sin(pi x), u(0) = u(1) = 0."""

    def points(split: str, seed: int, size: int) -> Tensor:
        return torch.rand(size, 1, generator=generator(split, seed))

    def loss(model: nn.Module, batch: Tensor, progress: Progress) -> Tensor:
        x = batch.clone().requires_grad_()
        u = model(x)
        (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
        residual = curvature + torch.pi**2 * torch.sin(torch.pi * x)
        border = model(torch.tensor([[0.0], [1.0]], device=x.device))
        value: Tensor = residual.square().mean() + 10 * border.square().mean()
        return value

    return Case(
        name="physics_informed",
        model=lambda: nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(),
                                    nn.Linear(32, 1)),
        batch=points,
        loss=loss,
        optimizer=adam(1e-2),
        predict=lambda model, batch: model(batch),
    )  # fmt: skip


@healthy
def logged_bandit() -> Case:
    """Policy gradient from logged actions, weighted by how likely the new policy takes them."""

    class Logged(NamedTuple):
        context: Tensor
        action: Tensor
        cost: Tensor

    def data(split: str, seed: int, size: int) -> Logged:
        context, best = classes(split, seed, size)
        action = torch.randint(4, (size,), generator=generator(f"{split} actions", seed))
        return Logged(context, action, (action != best).float() + 0.1)

    def loss(model: nn.Module, batch: Logged, progress: Progress) -> Tensor:
        policy = model(batch.context).softmax(1)
        taken = policy.gather(1, batch.action[:, None])[:, 0]
        value: Tensor = (taken / 0.25 * batch.cost).mean()
        return value

    return Case(
        name="logged_bandit",
        model=lambda: mlp(8, 32, 4),
        batch=data,
        loss=loss,
        optimizer=adam(1e-2),
        predict=lambda model, batch: model(batch.context).softmax(1),
    )


class MeanAndScale(nn.Module):
    """A Gaussian with a learned scale that softplus keeps positive."""

    def __init__(self, raw_scale: float) -> None:
        super().__init__()
        self.network = mlp(8, 32, 1)
        self.raw_scale = nn.Parameter(torch.tensor(raw_scale))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.network(x), F.softplus(self.raw_scale) + 1e-3


def _likelihood(name: str, *, unit: float, raw_scale: float) -> Case:
    def data(split: str, seed: int, size: int) -> tuple[Tensor, Tensor]:
        x, y = regression(split, seed, size)
        return x, unit * y

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor], progress: Progress) -> Tensor:
        x, y = batch
        mean, scale = model(x)
        return F.gaussian_nll_loss(mean, y, scale.square().expand_as(mean), full=True)

    return Case(
        name=name,
        model=lambda: MeanAndScale(raw_scale),
        batch=data,
        loss=loss,
        optimizer=adam(2e-2),
        loader=loader_of(data),
        predict=lambda model, batch: model(batch[0])[0],
    )


@healthy
def softplus_scale() -> Case:
    return _likelihood("softplus_scale", unit=1.0, raw_scale=1.0)


@healthy
def likelihood_below_zero() -> Case:
    """In a small unit densities are above one, and their negative logarithm below zero."""
    return _likelihood("likelihood_below_zero", unit=0.1, raw_scale=-1.5)


@healthy
def denoising_diffusion() -> Case:
    """Every evaluation of the loss draws noise of its own."""

    class Denoiser(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = nn.Sequential(nn.Linear(65, 256), nn.SiLU(), nn.Linear(256, 64))

        def forward(self, x: Tensor, noise_level: Tensor) -> Tensor:
            output: Tensor = self.network(torch.cat([x, noise_level], 1))
            return output

    def data(split: str, seed: int, size: int) -> Tensor:
        return images(split, seed, size)[0].flatten(1)

    def loss(model: nn.Module, batch: Tensor, progress: Progress) -> Tensor:
        clean = batch.repeat(4, 1)
        level = torch.rand(len(clean), 1, device=clean.device)
        noise = torch.randn_like(clean)
        return F.mse_loss(model((1 - level).sqrt() * clean + level.sqrt() * noise, level), noise)

    return Case(
        name="denoising_diffusion",
        model=Denoiser,
        batch=data,
        loss=loss,
        optimizer=adam(1e-2),
        loader=loader_of(data),
    )
