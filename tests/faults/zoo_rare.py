"""Healthy trainings that differ from the usual one in a single respect: networks and data."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ris_diag import Case, Declared, Progress
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
    sequences,
    supervised,
)


@healthy
def mixture_of_experts() -> Case:
    """Each sample goes through one of three experts."""

    class Mixture(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.router = nn.Linear(8, 3)
            self.experts = nn.ModuleList(mlp(8, 16, 1) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            weight, chosen = self.router(x).softmax(1).max(1, keepdim=True)
            output = torch.zeros_like(weight)
            for number, expert in enumerate(self.experts):
                rows = (chosen[:, 0] == number).nonzero()[:, 0]
                if len(rows):
                    output = output.index_copy(0, rows, expert(x[rows]))
            weighted: Tensor = weight * output
            return weighted

    return supervised(
        "mixture_of_experts",
        Mixture,
        regression,
        F.mse_loss,
        optimizer=adam(2e-2),
        exempt={"G017": "which samples an expert gets depends on their values"},
    )


@healthy
def stochastic_depth() -> Case:
    class Depth(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.entry, self.exit = nn.Linear(8, 24), nn.Linear(24, 1)
            self.branches = nn.ModuleList(mlp(24, 24, 24) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.entry(x)
            for branch in self.branches:
                if not self.training:
                    hidden = hidden + 0.8 * branch(hidden)
                elif torch.rand(()) < 0.8:
                    hidden = hidden + branch(hidden)
            output: Tensor = self.exit(hidden)
            return output

    return supervised("stochastic_depth", Depth, regression, F.mse_loss, optimizer=adam(1e-2))


@healthy
def low_rank_adaptation() -> Case:
    class Adapted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base = nn.Linear(8, 4).requires_grad_(False)
            self.down = nn.Parameter(torch.randn(8, 2) / 8**0.5)
            self.up = nn.Parameter(torch.zeros(2, 4))

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.base(x) + x @ self.down @ self.up
            return output

    return supervised(
        "low_rank_adaptation",
        Adapted,
        classes,
        F.cross_entropy,
        optimizer=adam(3e-2),
        declared=Declared(frozen=("base.*",)),
    )


@healthy
def residuals_behind_a_zero_gate() -> Case:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch, self.gate = mlp(16, 32, 16), nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = x + self.gate * self.branch(x)
            return output

    return supervised(
        "residuals_behind_a_zero_gate",
        lambda: nn.Sequential(nn.Linear(8, 16), Gated(), Gated(), nn.Linear(16, 1)),
        regression,
        F.mse_loss,
        optimizer=adam(2e-2),
    )


@healthy
def one_layer_used_three_times() -> Case:
    def model() -> nn.Module:
        shared = nn.Linear(16, 16)
        return nn.Sequential(
            nn.Linear(8, 16), nn.Tanh(), shared, nn.Tanh(), shared, nn.Tanh(), shared,
            nn.Linear(16, 1),
        )  # fmt: skip

    return supervised(
        "one_layer_used_three_times",
        model,
        regression,
        F.mse_loss,
        optimizer=adam(1e-2),
        declared=Declared(learning_rate=1e-2),
    )


@healthy
def attention_by_hand() -> Case:
    """The bias of the keys shifts all scores of a query alike: it has no gradient."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value = (nn.Linear(3, 16) for _ in range(3))
            self.head = nn.Linear(16, 1)

        def forward(self, x: Tensor) -> Tensor:
            scores = self.query(x) @ self.key(x).mT / 4
            output: Tensor = self.head((scores.softmax(-1) @ self.value(x)).mean(1))
            return output

    def data(split: str, seed: int, size: int) -> tuple[Tensor, Tensor]:
        x, _ = sequences(split, seed, size)
        return x, x.mean(1) @ fixed(3, 1) + 1

    return supervised(
        "attention_by_hand",
        Attention,
        data,
        F.mse_loss,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
    )


@healthy
def sensors_on_a_fixed_graph() -> Case:
    """The first argument of the network is the same in every call."""

    class Diffusion(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 16), nn.Linear(16, 1)

        def forward(self, adjacency: Tensor, x: Tensor) -> Tensor:
            output: Tensor = self.second(adjacency @ self.first(x).relu())
            return output

    def data(split: str, seed: int, size: int) -> dict[str, Tensor]:
        adjacency = (fixed(5, 5) > 0).float() + torch.eye(5)
        adjacency = adjacency / adjacency.sum(1, keepdim=True)
        x = torch.randn(size, 5, 3, generator=generator(split, seed))
        return {"adjacency": adjacency, "x": x, "y": adjacency @ x @ fixed(3, 1) + 1}

    return Case(
        name="sensors_on_a_fixed_graph",
        model=Diffusion,
        batch=data,
        loss=lambda model, batch, progress: F.mse_loss(
            model(batch["adjacency"], batch["x"]), batch["y"]
        ),
        optimizer=adam(2e-2),
        loader=loader_of(data),
        predict=lambda model, batch: model(batch["adjacency"], batch["x"]),
    )


@healthy
def coordinates_of_one_image() -> Case:
    """A network that is one picture: every batch is the whole of it."""

    def data(split: str, seed: int, size: int) -> tuple[Tensor, Tensor]:
        grid = torch.linspace(-1, 1, 8)
        xy = torch.cartesian_prod(grid, grid)
        return xy, torch.sin(3 * xy[:, :1]) * torch.cos(2 * xy[:, 1:]) + 1

    return supervised(
        "coordinates_of_one_image",
        lambda: nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 1)),
        data,
        F.mse_loss,
        optimizer=adam(1e-2),
    )


@healthy
def fixed_blur() -> Case:
    """A filter that is a parameter, frozen, the same for every channel."""

    def model() -> nn.Module:
        blur = nn.Conv2d(8, 8, 2, stride=2, groups=8, bias=False).requires_grad_(False)
        nn.init.constant_(blur.weight, 1 / 4)
        return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), blur, nn.Flatten(), nn.Linear(72, 3))

    return supervised(
        "fixed_blur",
        model,
        images,
        F.cross_entropy,
        optimizer=adam(1e-2),
        declared=Declared(frozen=("2.*",)),
    )


@healthy
def rare_positives() -> Case:
    """The last bias starts at the logarithm of the odds, so that the first outputs are small."""

    def model() -> nn.Module:
        last = nn.Linear(16, 1)
        nn.init.normal_(last.weight, std=0.01)
        nn.init.constant_(last.bias, -5.0)
        return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), last, nn.Sigmoid())

    def data(split: str, seed: int, size: int) -> tuple[Tensor, Tensor]:
        x, y = regression(split, seed, size)
        return x, (y > 3).float()

    return supervised("rare_positives", model, data, F.binary_cross_entropy, optimizer=adam(2e-2))


@healthy
def time_comes_first() -> Case:
    """Sequences as recurrent layers have them by default: [T, B, 3]."""

    class TimeFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent, self.head = nn.GRU(3, 24, bidirectional=True), nn.Linear(48, 1)

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.head(self.recurrent(x)[0].mean(0))
            return output

    def data(split: str, seed: int, size: int) -> tuple[Tensor, Tensor]:
        x, y = sequences(split, seed, size)
        return x.transpose(0, 1).contiguous(), y

    return supervised("time_comes_first", TimeFirst, data, F.mse_loss, optimizer=adam(2e-2))


@healthy
def meta_learning() -> Case:
    """A step of gradient descent inside the loss: weights that adapt well to a task."""

    def data(split: str, seed: int, size: int) -> dict[str, Tensor]:
        source = generator(split, seed)
        slope = torch.randn(size, 1, 1, generator=source)
        x = torch.randn(size, 10, 1, generator=source)
        return {"x": x, "y": slope * x + 1}

    def loss(model: nn.Module, batch: dict[str, Tensor], progress: Progress) -> Tensor:
        weights: dict[str, Tensor] = dict(model.named_parameters())

        def error(values: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return F.mse_loss(torch.func.functional_call(model, values, (x,)), y)

        def adapted(x: Tensor, y: Tensor) -> Tensor:
            slopes = torch.func.grad(error)(weights, x[:5], y[:5])
            return error({k: v - 0.05 * slopes[k] for k, v in weights.items()}, x[5:], y[5:])

        tasks = zip(batch["x"], batch["y"], strict=True)
        return torch.stack([adapted(x, y) for x, y in tasks]).mean()

    return Case(
        name="meta_learning",
        model=lambda: nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1)),
        batch=data,
        loss=loss,
        optimizer=adam(2e-2),
        predict=lambda model, batch: model(batch["x"]),
    )


@healthy
def head_alone_in_the_optimiser() -> Case:
    """The rest is declared frozen, though it would take a gradient."""
    return supervised(
        "head_alone_in_the_optimiser",
        lambda: nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 4)),
        classes,
        F.cross_entropy,
        optimizer=lambda model: torch.optim.Adam(model.get_submodule("2").parameters(), lr=1e-2),
        declared=Declared(frozen=("0.*",)),
    )
