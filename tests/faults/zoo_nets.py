"""Trainings that give an optimiser and a loss: networks and optimisers of many kinds."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.optim import lr_scheduler
from torch.utils.checkpoint import checkpoint

from ris_diag import Case, Declared, Progress
from tests.faults.zoo_parts import (
    LanguageModel,
    LastState,
    classes,
    conv_net,
    fixed,
    generator,
    healthy,
    images,
    loader_of,
    mlp,
    regression,
    sequences,
    supervised,
    tokens,
)


@healthy
def mlp_regression() -> Case:
    return supervised(
        "mlp_regression",
        lambda: mlp(8, 32, 1),
        regression,
        F.mse_loss,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
        declared=Declared(learning_rate=0.05),
    )


@healthy
def mlp_classification() -> Case:
    return supervised(
        "mlp_classification",
        lambda: mlp(8, 32, 4),
        classes,
        F.cross_entropy,
        optimizer=lambda model: torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05),
    )


@healthy
def mlp_100k() -> Case:
    def data(split: str, seed: int, size: int) -> tuple[Tensor, Tensor]:
        hidden = torch.randn(size, 4, generator=generator(split, seed))
        return hidden @ fixed(4, 64), torch.sin(hidden @ fixed(4, 8))

    return supervised(
        "mlp_100k",
        lambda: nn.Sequential(
            nn.Linear(64, 256),
            nn.GELU(),
            nn.Linear(256, 256),
            nn.GELU(),
            nn.Linear(256, 64),
            nn.GELU(),
            nn.Linear(64, 8),
        ),
        data,
        F.mse_loss,
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=2e-3),
        loader=loader_of(data, size=64),
    )


@healthy
def conv_batch_norm_dropout() -> Case:
    return supervised(
        "conv_batch_norm_dropout",
        conv_net,
        images,
        F.cross_entropy,
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=2e-3),
    )


@healthy
def bias_in_front_of_batch_norm() -> Case:
    return supervised(
        "bias_in_front_of_batch_norm",
        lambda: nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 1)),
        regression,
        F.mse_loss,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.05),
    )


@healthy
def lstm() -> Case:
    return supervised(
        "lstm",
        lambda: LastState(nn.LSTM),
        sequences,
        F.mse_loss,
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=1e-2),
    )


@healthy
def gru_cosine() -> Case:
    return supervised(
        "gru_cosine",
        lambda: LastState(nn.GRU),
        sequences,
        F.mse_loss,
        optimizer=lambda model: torch.optim.RMSprop(model.parameters(), lr=3e-3),
        scheduler=lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=30),
    )


def _language_model(name: str, *, tied: bool, **parts: Any) -> Case:
    def loss(model: nn.Module, batch: Tensor, progress: Progress) -> Tensor:
        logits = model(batch[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())

    return Case(
        name=name,
        model=lambda: LanguageModel(tied=tied),
        batch=tokens,
        loss=loss,
        optimizer=lambda model: torch.optim.AdamW(model.parameters(), lr=3e-3),
        loader=loader_of(tokens),
        predict=lambda model, batch: model(batch),
        **parts,
    )


@healthy
def transformer_tied() -> Case:
    ties = (("embedding.weight", "head.weight"),)
    return _language_model("transformer_tied", tied=True, declared=Declared(tied=ties))


@healthy
def transformer_untied() -> Case:
    return _language_model("transformer_untied", tied=False)


@healthy
def zero_initialised_head() -> Case:
    def model() -> nn.Module:
        head = nn.Linear(32, 1)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return nn.Sequential(mlp(8, 32, 32), nn.ReLU(), head)

    return supervised(
        "zero_initialised_head",
        model,
        regression,
        F.mse_loss,
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=1e-2),
    )


@healthy
def zero_initialised_residual_branches() -> Case:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.inner, self.outer = (
                nn.LayerNorm(16),
                nn.Linear(16, 32),
                nn.Linear(32, 16),
            )
            nn.init.zeros_(self.outer.weight)
            nn.init.zeros_(self.outer.bias)

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = x + self.outer(F.gelu(self.inner(self.norm(x))))
            return output

    return supervised(
        "zero_initialised_residual_branches",
        lambda: nn.Sequential(nn.Linear(8, 16), Block(), Block(), nn.Linear(16, 1)),
        regression,
        F.mse_loss,
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=1e-2),
    )


@healthy
def complex_weights() -> Case:
    def data(split: str, seed: int, size: int) -> tuple[Tensor, Tensor]:
        source = generator(split, seed)
        mixing = torch.randn(4, 6, dtype=torch.complex64, generator=generator("truth", 0))
        x = torch.randn(size, 4, dtype=torch.complex64, generator=source)
        return x, x @ mixing

    return supervised(
        "complex_weights",
        lambda: nn.Linear(4, 6, dtype=torch.complex64),
        data,
        lambda prediction, y: (prediction - y).abs().square().mean(),
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=3e-2),
    )


@healthy
def float64() -> Case:
    def data(split: str, seed: int, size: int) -> tuple[Tensor, Tensor]:
        x, y = regression(split, seed, size)
        return x.double(), y.double()

    return supervised(
        "float64",
        lambda: mlp(8, 32, 1).double(),
        data,
        F.mse_loss,
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=1e-2),
    )


@healthy
def bfloat16_throughout() -> Case:
    def data(split: str, seed: int, size: int) -> tuple[Tensor, Tensor]:
        x, label = classes(split, seed, size)
        return x.bfloat16(), label

    return supervised(
        "bfloat16_throughout",
        lambda: mlp(8, 32, 4).bfloat16(),
        data,
        lambda logits, label: F.cross_entropy(logits.float(), label),
        optimizer=lambda model: torch.optim.AdamW(model.parameters(), lr=1e-2),
    )


@healthy
def two_parameter_groups() -> Case:
    return supervised(
        "two_parameter_groups",
        lambda: nn.Sequential(mlp(8, 32, 16), nn.ReLU(), nn.Linear(16, 4)),
        classes,
        F.cross_entropy,
        optimizer=lambda model: torch.optim.AdamW(
            [
                {"params": model.get_submodule("0").parameters(), "lr": 5e-3, "weight_decay": 0.0},
                {"params": model.get_submodule("2").parameters(), "lr": 2e-2},
            ]
        ),
    )


@healthy
def weights_decay_and_biases_do_not() -> Case:
    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        parameters = list(model.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": 0.1},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=5e-3)

    return supervised(
        "weights_decay_and_biases_do_not",
        lambda: nn.Sequential(nn.Linear(8, 32), nn.LayerNorm(32), nn.SiLU(), nn.Linear(32, 1)),
        regression,
        F.mse_loss,
        optimizer=optimizer,
        declared=Declared(learning_rate=5e-3),
    )


@healthy
def adagrad_huber() -> Case:
    return supervised(
        "adagrad_huber",
        lambda: mlp(8, 32, 1),
        regression,
        F.huber_loss,
        optimizer=lambda model: torch.optim.Adagrad(model.parameters(), lr=0.03),
    )


@healthy
def group_norm() -> Case:
    return supervised(
        "group_norm",
        lambda: nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 3)
        ),
        images,
        F.cross_entropy,
        optimizer=lambda model: torch.optim.SGD(
            model.parameters(), lr=0.05, nesterov=True, momentum=0.9
        ),
    )


@healthy
def instance_norm() -> Case:
    return supervised(
        "instance_norm",
        lambda: nn.Sequential(
            nn.Conv2d(1, 8, 3),
            nn.InstanceNorm2d(8, affine=True),
            nn.LeakyReLU(0.1),
            nn.Flatten(),
            nn.Linear(288, 3),
        ),
        images,
        F.cross_entropy,
        optimizer=lambda model: torch.optim.NAdam(model.parameters(), lr=3e-3),
    )


@healthy
def weight_norm() -> Case:
    return supervised(
        "weight_norm",
        lambda: nn.Sequential(
            parametrizations.weight_norm(nn.Linear(8, 32)),
            nn.Tanh(),
            parametrizations.weight_norm(nn.Linear(32, 1)),
        ),
        regression,
        F.mse_loss,
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=1e-2),
    )


@healthy
def spectral_norm() -> Case:
    return supervised(
        "spectral_norm",
        lambda: nn.Sequential(
            parametrizations.spectral_norm(nn.Linear(8, 32)),
            nn.LeakyReLU(),
            parametrizations.spectral_norm(nn.Linear(32, 32)),
            nn.LeakyReLU(),
            nn.Linear(32, 4),
        ),
        classes,
        F.cross_entropy,
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=1e-2),
    )


@healthy
def activation_checkpointing() -> Case:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.entry, self.exit = nn.Linear(8, 32), nn.Linear(32, 1)
            self.blocks = nn.ModuleList(
                nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Dropout(0.1)) for _ in range(2)
            )

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.entry(x)
            for block in self.blocks:
                hidden = hidden + checkpoint(block, hidden, use_reentrant=False)
            output: Tensor = self.exit(hidden)
            return output

    return supervised(
        "activation_checkpointing",
        Checkpointed,
        regression,
        F.mse_loss,
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=1e-2),
    )


@healthy
def relu_squared_without_bias() -> Case:
    class Squared(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x).square()

    return supervised(
        "relu_squared_without_bias",
        lambda: nn.Sequential(
            nn.Linear(8, 48, bias=False), Squared(), nn.Linear(48, 1, bias=False)
        ),
        regression,
        F.smooth_l1_loss,
        optimizer=lambda model: torch.optim.RAdam(model.parameters(), lr=6e-2),
    )
