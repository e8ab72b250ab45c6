"""Healthy trainings that estimate covariances and channels, each with ways of its own."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ris_diag import Case, Covariance, Declared, Epoch, Losses, Plan, Progress
from tests.faults.zoo_parts import generator, healthy, mlp

M, SNAPSHOTS, RATE = 5, 12, 4e-3
WEIGHTS = {"mix": 1.0, "own": 0.5, "bregman": 0.1}
PROTOTYPE = dict.fromkeys(("G001", "G002", "G004"), "a prototype refuses nothing")
Waves = dict[str, Tensor]


def waves(split: str, seed: int, size: int) -> Waves:
    """Two far sources in noise: given [B, M, M], wanted [B, M, M], both of trace M."""
    source = generator(split, seed)
    sine = 1.6 * torch.rand(size, 1, 2, generator=source) - 0.8
    A = torch.exp(1j * torch.pi * torch.arange(M)[:, None] * sine)
    level = 0.1 + 0.4 * torch.rand(size, 1, 1, generator=source)
    wanted = A @ A.mH / 2 + level * torch.eye(M)
    shape = (size, M, SNAPSHOTS)
    X = torch.linalg.cholesky(wanted) @ torch.randn(shape, dtype=torch.complex64, generator=source)
    return {"given": with_trace(X @ X.mH), "wanted": with_trace(wanted)}


def with_trace(R: Tensor, trace: float = M) -> Tensor:
    return R * (trace / R.diagonal(dim1=1, dim2=2).real.sum(1))[:, None, None]


def factored(L: Tensor) -> Tensor:
    return L @ L.mH


class Factor(nn.Module):
    """R_samp -> a covariance of trace M, from a factor that `build` makes one of."""

    def __init__(self, build: Callable[[Tensor], Tensor] = factored) -> None:
        super().__init__()
        self.layers, self.build = mlp(2 * M * M, 96, 2 * M * M), build

    def forward(self, given: Tensor) -> Tensor:
        numbers = self.layers(torch.view_as_real(given).flatten(1))
        L = torch.view_as_complex(numbers.reshape(-1, M, M, 2)) + torch.eye(M, device=given.device)
        return with_trace(self.build(L) + 0.02 * torch.eye(M, device=given.device))


def relative(estimate: Tensor, truth: Tensor) -> Tensor:
    error = (estimate - truth).abs().square().sum((1, 2))
    nmse: Tensor = error / truth.abs().square().sum((1, 2))
    return nmse


def bregman(estimate: Tensor, truth: Tensor) -> Tensor:
    """tr(R^-1 P) - log det(R^-1 P) - M, over M."""
    inner = torch.linalg.solve(truth, estimate)
    trace = inner.diagonal(dim1=1, dim2=2).sum(1).real
    divergence: Tensor = (trace - torch.linalg.slogdet(inner)[1] - M) / M
    return divergence


def mixed(R_pred: Tensor, R_samp: Tensor, beta: float) -> Tensor:
    return (1 - beta) * R_pred + beta * R_samp


Term = Callable[[Tensor, Tensor], Tensor]


class Mixed(nn.Module):
    """Three terms: of the blend, of the estimate by the same distance, and by a divergence."""

    def __init__(self, weights: Any, term: Term = relative, own: Term | None = None) -> None:
        super().__init__()
        self.weights, self.term, self.own = dict(weights), term, own or term

    def forward(self, P: Tensor, S: Tensor, R: Tensor, beta: float) -> Losses:
        blended = mixed(P, S, beta)
        terms = {
            "mix": self.term(blended, R).mean(),
            "own": self.own(P, R).mean(),
            "bregman": bregman(P, R).mean(),
        }
        total = sum((self.weights[name] * value for name, value in terms.items()), P.new_zeros(()))
        return Losses(total=total.real, terms=terms, prediction=P, blended=blended)


def beta_of(epoch: int, epochs: int) -> float:
    return Declared().beta(epoch, epochs)


class Estimation(NamedTuple):
    """A training by the three terms, with the parts that a fault changes."""

    build: Callable[[Tensor], Tensor] = factored
    term: Term = relative
    own: Term | None = None
    accumulation: int = 1

    def losses(self, model: nn.Module, batch: Waves, beta: float) -> Losses:
        criterion = Mixed(WEIGHTS, self.term, self.own)
        losses: Losses = criterion(model(batch["given"]), batch["given"], batch["wanted"], beta)
        return losses

    def fit(self, model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
        history = []
        for epoch in range(1, plan.epochs + 1):
            beta = beta_of(epoch, plan.epochs) if plan.beta is None else plan.beta
            model.train()
            totals = []
            optimizer.zero_grad()
            for number, batch in enumerate(plan.train, 1):
                losses = self.losses(model, batch, beta)
                plan.on_step(epoch, losses)
                share = losses.total / self.accumulation
                share.backward()  # type: ignore[no-untyped-call]
                totals.append(losses.total.item())
                if number % self.accumulation == 0:
                    optimizer.step()
                    optimizer.zero_grad()
            history.append(Epoch(train=sum(totals) / len(totals)))
        return history

    def case(self, name: str) -> Case:
        return Case(
            name=name,
            model=lambda: Factor(self.build),
            batch=waves,
            loss=self.loss,
            fit=self.fit,
            metric=lambda model, batch: error_of(model, batch),
            covariance=Covariance(
                predict=lambda model, batch: model(batch["given"]),
                sample=lambda batch: batch["given"],
                truth=lambda batch: batch["wanted"],
                beta=beta_of,
                criterion=lambda weights: Mixed(weights, self.term, self.own),
                loss=lambda criterion, P, S, R, beta: criterion(P, S, R, beta),
            ),
            declared=Declared(
                weights=WEIGHTS,
                learning_rate=RATE,
                trace=float(M),
                accumulation=self.accumulation,
            ),
            exempt={"L010": "says nothing", **PROTOTYPE},
        )

    def loss(self, model: nn.Module, batch: Waves, progress: Progress) -> Losses:
        return self.losses(model, batch, beta_of(progress.epoch, progress.epochs))


def error_of(model: nn.Module, batch: Waves) -> float:
    with torch.no_grad():
        return float(relative(model(batch["given"]), batch["wanted"]).mean())


@healthy
def three_terms() -> Case:
    """Two auxiliary terms of two kinds, and a distance that weighs all entries alike."""
    case = Estimation().case("three_terms")
    exempt = {**case.exempt, "M009": "the range of single precision is wide enough"}
    return replace(case, distance=relative, exempt=exempt)


@healthy
def accumulated_blend() -> Case:
    """beta walks while two batches make a step."""
    return Estimation(accumulation=2).case("accumulated_blend")


@healthy
def judged_by_the_blend() -> Case:
    """The metric is that of what inference hands out, blended: no truth makes it zero."""

    def metric(model: nn.Module, batch: Waves) -> float:
        with torch.no_grad():
            R = mixed(model(batch["given"]), batch["given"], 0.3)
            return float(relative(R, batch["wanted"]).mean())

    return replace(Estimation().case("judged_by_the_blend"), metric=metric)


@healthy
def any_matrix() -> Case:
    """The network gives any complex matrix, and learns that covariances are Hermitian."""
    return Estimation(build=lambda L: 2 * L).case("any_matrix")


# ---- channels: real and imaginary parts as planes


def channels(split: str, seed: int, size: int) -> Waves:
    """Noisy [B, 2, 8], clean [B, 2, 8], and how noisy, [B, 1]."""
    source = generator(split, seed)
    taps = torch.randn(size, 3, dtype=torch.complex64, generator=source)
    clean = torch.fft.fft(taps, n=8) / 2
    level = 0.1 + 0.3 * torch.rand(size, 1, generator=source)
    noise = torch.randn(size, 8, dtype=torch.complex64, generator=source)
    return {"noisy": planes(clean + level * noise), "level": level, "clean": planes(clean)}


def planes(z: Tensor) -> Tensor:
    return torch.stack([z.real, z.imag], 1)


def joined(z: Tensor) -> Tensor:
    return torch.complex(z[:, 0].contiguous(), z[:, 1].contiguous())


class Denoiser(nn.Module):
    """The whole batch, its label too, of which two tensors are read -> planes [B, 2, 8]."""

    def __init__(self, last: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        self.layers, self.last = mlp(17, 64, 16), last

    def forward(self, batch: Waves) -> Tensor:
        numbers = torch.cat([batch["noisy"].flatten(1), batch["level"]], 1)
        return self.last(self.layers(numbers)).reshape(-1, 2, 8)


def off(estimate: Tensor, truth: Tensor) -> Tensor:
    return (joined(estimate) - joined(truth)).abs().square().mean()


def denoised(name: str, last: Callable[[Tensor], Tensor], batch: Any = channels) -> Case:
    return Case(
        name=name,
        model=lambda: Denoiser(last),
        batch=batch,
        loss=lambda model, batch, progress: off(model(batch), batch["clean"]),
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=3e-3),
        predict=lambda model, batch: model(batch),
        truth=lambda batch: batch["clean"],
        metric=lambda model, batch: off(model(batch), batch["clean"]),
    )


@healthy
def channels_in_planes() -> Case:
    return denoised("channels_in_planes", lambda x: x)


@healthy
def reflections_between_0_and_1() -> Case:
    """A sigmoid in front of complex numbers whose parts lie in its range."""

    def batch(split: str, seed: int, size: int) -> Waves:
        served = channels(split, seed, size)
        return {**served, "clean": torch.sigmoid(served["clean"])}

    return denoised("reflections_between_0_and_1", torch.sigmoid, batch)


@healthy
def held_data_of_its_own() -> Case:
    """The loop validates on batches that it made itself, and on the training batches as well."""

    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        device = next(model.parameters()).device
        held = [
            {name: part.to(device) for name, part in channels("held", k, 16).items()}
            for k in range(2)
        ]
        history: list[Epoch] = []
        best = float("inf")
        for _ in range(plan.epochs):
            model.train()
            losses = []
            for batch in plan.train:
                loss = off(model(batch), batch["clean"])
                plan.on_step(len(history) + 1, loss)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                losses.append(loss.item())
            model.eval()
            with torch.no_grad():
                best = min(best, *(float(off(model(b), b["clean"])) for b in plan.train))
                values = [float(off(model(b), b["clean"])) for b in held]
            history.append(Epoch(train=sum(losses) / len(losses), validation=sum(values) / 2))
        return history

    return replace(
        denoised("held_data_of_its_own", lambda x: x),
        fit=fit,
        optimizer=None,
        exempt={"L010": "says nothing"},
    )
