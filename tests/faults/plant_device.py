"""Faults of where tensors stand: right on the CPU, an error or a wait on a GPU."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ris_diag import Case, Progress
from tests.faults.elsewhere import generator_elsewhere, index_on_cpu, planted
from tests.faults.registry import OVERFLOW
from tests.faults.zoo_grounds import Pair, next_token, plain_regression, stripes
from tests.faults.zoo_parts import mlp

TUNING = "PyTorch documentation, Performance Tuning Guide"


class Scaled(nn.Module):
    """A network whose output is multiplied by a number for each of its entries."""

    def __init__(self, factors: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.factors = mlp(8, 32, 1), factors

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.network(x)
        return output * self.factors(x)


def regressor(model: Callable[[], nn.Module], **parts: Any) -> Case:
    return replace(plain_regression(), model=model, **parts)


def judged(criterion: Callable[[Tensor, Tensor], Tensor]) -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        return criterion(model(batch[0]), batch[1])

    return replace(plain_regression(), loss=loss)


# ---- what doesn't move with the model


@planted("constant-not-moved", plain_regression)
def standardisation_is_a_plain_attribute() -> Case:
    class Standardised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = mlp(8, 32, 1)
            self.mean = torch.zeros(8)  # planted: standardisation_is_a_plain_attribute

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.network(x - self.mean)
            return output

    return regressor(Standardised)


@planted("constant-not-moved", stripes)
def windows_in_a_dictionary() -> Case:
    class Windowed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = stripes().model()  # type: ignore[misc]
            # planted: windows_in_a_dictionary
            self.windows = {"flat": torch.ones(8, 8), "hann": torch.hann_window(8)}

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.network(x * self.windows["flat"])
            return output

    return replace(stripes(), model=Windowed)


@planted("constant-not-moved", plain_regression)
def weights_of_the_loss_are_a_constant() -> Case:
    weights = torch.ones(1, 1)

    def weighted(prediction: Tensor, y: Tensor) -> Tensor:
        # planted: weights_of_the_loss_are_a_constant
        return (weights * (prediction - y).square()).mean()

    return judged(weighted)


@planted("module-left-behind", plain_regression)
def network_of_the_loss_is_not_moved() -> Case:
    judge = mlp(1, 8, 4).requires_grad_(False)

    def perceptual(prediction: Tensor, y: Tensor) -> Tensor:
        # planted: network_of_the_loss_is_not_moved
        return F.mse_loss(prediction, y) + 0.01 * F.mse_loss(judge(prediction), judge(y))

    return judged(perceptual)


@planted("batch-left-behind", plain_regression, source=OVERFLOW)
def targets_in_an_object_of_their_own() -> Case:
    class Target:
        def __init__(self, y: Tensor) -> None:
            self.y = y

    def data(split: str, seed: int, size: int) -> Any:
        x, y = plain_regression().batch(split, seed, size)  # type: ignore[misc]
        return x, Target(y)

    def loss(model: nn.Module, batch: Any, progress: Progress) -> Tensor:
        x, target = batch
        return F.mse_loss(model(x), target.y)  # planted: targets_in_an_object_of_their_own

    def metric(model: nn.Module, batch: Any) -> float:
        with torch.no_grad():
            return float((model(batch[0]) - batch[1].y).abs().mean())

    return replace(
        plain_regression(),
        batch=data,
        loss=loss,
        metric=metric,
        truth=lambda batch: batch[1].y,
        loader=None,
        declared=None,
    )


# ---- what is made in the step


@planted("tensor-made-on-cpu", next_token)
def positions_without_a_device() -> Case:
    class Positioned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.position = nn.Embedding(16, 32), nn.Embedding(12, 32)
            self.head = nn.Linear(32, 16)

        def forward(self, x: Tensor) -> Tensor:
            positions = torch.arange(x.shape[1])  # planted: positions_without_a_device
            logits: Tensor = self.head(self.embedding(x) + self.position(positions))
            return logits

    return replace(next_token(), model=Positioned, declared=None)


@planted("tensor-made-on-cpu", next_token)
def causal_mask_without_a_device() -> Case:
    class Averaged(nn.Module):
        """Attends to all earlier tokens alike."""

        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(16, 32), nn.Linear(32, 16)

        def forward(self, x: Tensor) -> Tensor:
            length = x.shape[1]
            shares = torch.ones(length, length).tril()  # planted: causal_mask_without_a_device
            shares = shares / shares.sum(1, keepdim=True)
            logits: Tensor = self.head(shares @ self.embedding(x) + self.embedding(x))
            return logits

    return replace(next_token(), model=Averaged, declared=None)


@planted("tensor-made-on-cpu", plain_regression)
def noise_without_a_device() -> Case:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = mlp(8, 32, 1)

        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                x = x + 0.01 * torch.randn(x.shape)  # planted: noise_without_a_device
            output: Tensor = self.network(x)
            return output

    return regressor(Noisy)


@planted("tensor-made-on-cpu", plain_regression)
def first_state_without_a_device() -> Case:
    class Refined(nn.Module):
        """Corrects its own answer, twice."""

        def __init__(self) -> None:
            super().__init__()
            self.correct = mlp(9, 32, 1)

        def forward(self, x: Tensor) -> Tensor:
            state = torch.zeros(len(x), 1)  # planted: first_state_without_a_device
            for _ in range(2):
                state = state + self.correct(torch.cat([x, state], 1))
            return state

    return regressor(Refined)


@planted("tensor-made-on-cpu", plain_regression)
def device_is_written_down() -> Case:
    def factors(x: Tensor) -> Tensor:
        return torch.ones(len(x), 1, device="cpu")  # planted: device_is_written_down

    return regressor(lambda: Scaled(factors))


@planted("numpy-array-on-cpu", plain_regression)
def window_from_numpy() -> Case:
    window = np.ones((1, 8), dtype=np.float32)

    class Windowed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = mlp(8, 32, 1)

        def forward(self, x: Tensor) -> Tensor:
            window_of_x = torch.from_numpy(window)  # planted: window_from_numpy
            output: Tensor = self.network(x * window_of_x)
            return output

    return regressor(Windowed)


@planted("tensor-made-on-cpu", plain_regression)
def derivative_of_ones_without_a_device() -> Case:
    class Kept(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.count = len(x)
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> Tensor:
            ones = torch.ones(ctx.count, 1)  # planted: derivative_of_ones_without_a_device
            return gradients[0] * ones

    kept: Callable[[Tensor], Tensor] = Kept.apply
    return judged(lambda prediction, y: F.mse_loss(kept(prediction), y))


# ---- what leaves the device


@planted("moved-to-cpu", plain_regression)
def loss_on_the_cpu() -> Case:
    def criterion(prediction: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(prediction.cpu(), y)  # planted: loss_on_the_cpu

    return judged(criterion)


@planted("moved-to-cpu", plain_regression)
def prediction_moved_by_name() -> Case:
    def criterion(prediction: Tensor, y: Tensor) -> Tensor:
        error = prediction.to("cpu") - y  # planted: prediction_moved_by_name
        return error.square().mean()

    return judged(criterion)


@planted("cuda-tensor-to-numpy", plain_regression)
def spread_by_numpy() -> Case:
    def criterion(prediction: Tensor, y: Tensor) -> Tensor:
        spread = float(np.std(y.numpy()))  # planted: spread_by_numpy
        return F.mse_loss(prediction, y) / max(spread, 1e-3) ** 2

    return judged(criterion)


@planted("generator-on-cpu", plain_regression, proof=generator_elsewhere)
def noise_from_a_generator_of_the_cpu() -> Case:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.source = mlp(8, 32, 1), torch.Generator().manual_seed(3)

        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                # planted: noise_from_a_generator_of_the_cpu
                x = x + 0.01 * torch.randn(x.shape, device=x.device, generator=self.source)
            output: Tensor = self.network(x)
            return output

    return regressor(Noisy)


@planted("index-on-cpu", plain_regression, source=TUNING, proof=index_on_cpu)
def features_in_another_order() -> Case:
    class Reordered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = mlp(8, 32, 1)

        def forward(self, x: Tensor) -> Tensor:
            order = torch.arange(7, -1, -1)  # planted: features_in_another_order
            output: Tensor = self.network(x[:, order])
            return output

    return regressor(Reordered)


# ---- what waits


@planted("step-waits-for-device", plain_regression, source=TUNING)
def largest_error_is_fetched() -> Case:
    def criterion(prediction: Tensor, y: Tensor) -> Tensor:
        largest = (prediction - y).detach().abs().max().item()  # planted: largest_error_is_fetched
        return F.mse_loss(prediction, y) / max(largest, 1.0)

    return judged(criterion)


@planted("step-waits-for-device", plain_regression, source=TUNING)
def branch_on_a_value() -> Case:
    def criterion(prediction: Tensor, y: Tensor) -> Tensor:
        loss = F.mse_loss(prediction, y)
        if loss > 1e3:  # planted: branch_on_a_value
            loss = loss / 2
        return loss

    return judged(criterion)


@planted("step-waits-for-device", plain_regression, source=TUNING)
def errors_picked_by_a_mask() -> Case:
    def criterion(prediction: Tensor, y: Tensor) -> Tensor:
        error = (prediction - y).square()
        return error[error < 1e6].mean()  # planted: errors_picked_by_a_mask

    return judged(criterion)


@planted("step-waits-for-device", plain_regression, source=TUNING)
def samples_one_by_one() -> Case:
    def criterion(prediction: Tensor, y: Tensor) -> Tensor:
        weights = [
            1.0 if value > -9 else 0.5 for value in y[:, 0].tolist()
        ]  # planted: samples_one_by_one
        terms = [w * F.mse_loss(p, t) for w, p, t in zip(weights, prediction, y, strict=True)]
        return torch.stack(terms).mean()

    return judged(criterion)


@planted("step-waits-for-device", plain_regression, source=TUNING)
def values_are_printed() -> Case:
    def criterion(prediction: Tensor, y: Tensor) -> Tensor:
        loss = F.mse_loss(prediction, y)
        print(f"loss {loss:.4f}")  # noqa: T201  # planted: values_are_printed
        return loss

    return judged(criterion)
