"""Faults of derivatives: those taken inside of a loss, and those written by hand."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ris_diag import Case, Epoch, Plan, Progress
from tests.faults.plant_loop import epoch_of
from tests.faults.registry import SILENT, TAXONOMY, fault
from tests.faults.zoo_parts import (
    adam,
    classes,
    generator,
    healthy,
    loader_of,
    mlp,
    regression,
    supervised,
)

# ---- a loss with derivatives of its own


def times(split: str, seed: int, size: int) -> Tensor:
    """Points [B, 1] between 0 and 2."""
    return 2 * torch.rand(size, 1, generator=generator(split, seed))


def wave() -> nn.Module:
    return nn.Sequential(
        nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1)
    )


@healthy
def decay_equation() -> Case:
    """A network that solves u' = -2 u, u(0) = 1."""

    def loss(model: nn.Module, batch: Tensor, progress: Progress) -> Tensor:
        t = batch.clone().requires_grad_()
        u = model(t)
        (slope,) = torch.autograd.grad(u.sum(), t, create_graph=True)
        start = model(torch.zeros_like(batch[:1]))
        value: Tensor = (slope + 2 * u).square().mean() + (start - 1).square().mean()
        return value

    return Case(
        name="decay_equation",
        model=wave,
        batch=times,
        loss=loss,
        optimizer=adam(5e-3),
        loader=loader_of(times),
    )


@fault("L049", says="enter the loss as constants", cause="term-is-cut", healthy=decay_equation,
       source="PyTorch's documentation of torch.autograd.grad")  # fmt: skip
def slope_is_taken_without_a_graph() -> Case:
    def loss(model: nn.Module, batch: Tensor, progress: Progress) -> Tensor:
        t = batch.clone().requires_grad_()
        u = model(t)
        # planted: slope_is_taken_without_a_graph
        (slope,) = torch.autograd.grad(u.sum(), t, retain_graph=True)
        start = model(torch.zeros_like(batch[:1]))
        value: Tensor = (slope + 2 * u).square().mean() + (start - 1).square().mean()
        return value

    return replace(decay_equation(), loss=loss)


@healthy
def smooth_classifier() -> Case:
    """Punishes the slope of the right class at the samples."""

    def loss(model: nn.Module, batch: Any, progress: Progress) -> Tensor:
        x, y = batch[0].clone().requires_grad_(), batch[1]
        logits = model(x)
        chosen = logits.gather(1, y[:, None]).sum()
        (slope,) = torch.autograd.grad(chosen, x, create_graph=True)
        value: Tensor = F.cross_entropy(logits, y) + 0.02 * slope.square().sum(1).mean()
        return value

    return replace(
        supervised(
            "smooth_classifier",
            lambda: mlp(8, 32, 4),
            classes,
            F.cross_entropy,
            optimizer=adam(5e-3),
        ),
        loss=loss,
    )


@fault(cause="term-is-cut", healthy=smooth_classifier, source=SILENT)
def penalty_has_no_gradient() -> Case:
    def loss(model: nn.Module, batch: Any, progress: Progress) -> Tensor:
        x, y = batch[0].clone().requires_grad_(), batch[1]
        logits = model(x)
        chosen = logits.gather(1, y[:, None]).sum()
        # planted: penalty_has_no_gradient
        (slope,) = torch.autograd.grad(chosen, x, retain_graph=True)
        value: Tensor = F.cross_entropy(logits, y) + 0.02 * slope.square().sum(1).mean()
        return value

    return replace(smooth_classifier(), loss=loss)


@healthy
def adversarial_samples() -> Case:
    """Moves the samples up the loss; that gradient is meant to be a constant."""

    def loss(model: nn.Module, batch: Any, progress: Progress) -> Tensor:
        x, y = batch[0].clone().requires_grad_(), batch[1]
        (slope,) = torch.autograd.grad(F.cross_entropy(model(x), y), x)
        value: Tensor = F.cross_entropy(model(batch[0] + 0.1 * slope.sign()), y)
        return value

    return replace(
        supervised(
            "adversarial_samples",
            lambda: mlp(8, 32, 4),
            classes,
            F.cross_entropy,
            optimizer=adam(5e-3),
        ),
        loss=loss,
    )


@healthy
def balanced_terms() -> Case:
    """Weighs a term by the ratio of two gradients with respect to a weight."""

    def loss(model: Any, batch: Any, progress: Progress) -> Tensor:
        x, y = batch
        output = model(x)
        terms = F.mse_loss(output, y), F.l1_loss(output, y)
        last = model[-1].weight
        first, second = (
            torch.autograd.grad(term, last, retain_graph=True)[0].norm() for term in terms
        )
        value: Tensor = terms[0] + 0.5 * (first / (second + 1e-4)).clamp(0, 10).detach() * terms[1]
        return value

    return replace(
        supervised(
            "balanced_terms", lambda: mlp(8, 32, 1), regression, F.mse_loss, optimizer=adam(5e-3)
        ),
        loss=loss,
    )


@healthy
def penalised_critic() -> Case:
    """A critic with a gradient penalty, three steps for one of the generator; all are reported."""

    def data(split: str, seed: int, size: int) -> Tensor:
        angle = 6.28 * torch.rand(size, 1, generator=generator(split, seed))
        return torch.cat([angle.cos(), angle.sin()], 1)

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maker, self.critic = mlp(3, 24, 2), mlp(2, 24, 1)

        def forward(self, z: Tensor) -> Tensor:
            made: Tensor = self.maker(z)
            return made

    def penalty(critic: nn.Module, real: Tensor, made: Tensor) -> Tensor:
        between = torch.lerp(real, made, torch.rand_like(real[:, :1])).requires_grad_()
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        value: Tensor = (slope.norm(dim=1) - 1).square().mean()
        return value

    def fit(model: Any, plan: Plan) -> list[Epoch]:
        makers = torch.optim.Adam(model.maker.parameters(), lr=1e-3, betas=(0.0, 0.9))
        critics = torch.optim.Adam(model.critic.parameters(), lr=1e-3, betas=(0.0, 0.9))
        count, history = 0, []

        def stepped(optimizer: torch.optim.Optimizer, epoch: int, loss: Tensor) -> float:
            plan.on_step(epoch, loss)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            return loss.item()

        for epoch in range(1, plan.epochs + 1):
            seen = []
            for real in plan.train:
                made = model(torch.randn(len(real), 3, device=real.device)).detach()
                loss = model.critic(made).mean() - model.critic(real).mean()
                loss = loss + 10 * penalty(model.critic, real, made)
                seen.append(stepped(critics, epoch, loss))
                count += 1
                if count % 3 == 0:
                    fresh = model(torch.randn(len(real), 3, device=real.device))
                    seen.append(stepped(makers, epoch, -model.critic(fresh).mean()))
            history.append(epoch_of(seen))
        return history

    return Case(
        name="penalised_critic",
        model=Pair,
        batch=data,
        fit=fit,
        exempt={"L001": "two networks against each other have no loss that falls"},
    )


# ---- a backward written by hand


class SoftSign(torch.autograd.Function):
    """x / sqrt(1 + x^2)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        root = torch.rsqrt(1 + x * x)
        ctx.save_for_backward(root)
        return x * root

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (root,) = ctx.saved_tensors
        value: Tensor = grad * root**3
        return value


class Reversed(SoftSign):
    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (root,) = ctx.saved_tensors
        value: Tensor = -grad * root**3  # planted: own_backward_has_the_wrong_sign
        return value


class Product(torch.autograd.Function):
    """(x [B, K], weight [K, L]) -> x weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x @ weight

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return grad @ weight.T, x.T @ grad


class Unscaled(Product):
    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return grad @ weight.T, 0.1 * x.T @ grad  # planted: own_backward_lacks_a_factor


class TurnedBack(torch.autograd.Function):
    """The identity, with the gradient reversed: an adversary in front of a second head."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return -0.3 * grad


class Spike(torch.autograd.Function):
    """A step with the slope of a sigmoid in its place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        value: Tensor = grad / (1 + 4 * x.abs()).square()
        return value


class Activated(nn.Module):
    """Two layers with an own function between them."""

    def __init__(self, function: Any, outputs: int = 1) -> None:
        super().__init__()
        self.entry, self.middle, self.exit = (
            nn.Linear(8, 32),
            nn.Linear(32, 32),
            nn.Linear(32, outputs),
        )
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.middle(self.function.apply(self.entry(x))))
        output: Tensor = self.exit(hidden)
        return output


class Multiplied(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.3 * torch.randn(8, 32))
        self.rest = mlp(32, 32, 1)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.rest(self.function.apply(x, self.weight))
        return output


def regressed(name: str, model: Any) -> Case:
    return supervised(name, model, regression, F.mse_loss, optimizer=adam(5e-3))


@healthy
def own_activation() -> Case:
    return regressed("own_activation", lambda: Activated(SoftSign))


@healthy
def own_product() -> Case:
    return regressed("own_product", lambda: Multiplied(Product))


@healthy
def spiking() -> Case:
    """Its hidden units are 0 or 1; the gradient is that of something smooth, on purpose."""
    return replace(regressed("spiking", lambda: Activated(Spike)), optimizer=adam(1e-2))


@healthy
def domain_adversary() -> Case:
    """Classes from features that don't tell a domain: the second head's gradient is reversed."""

    class Domains(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(nn.Linear(8, 32), nn.ReLU())
            self.head, self.domain = nn.Linear(32, 4), nn.Linear(32, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            hidden = self.features(x)
            turned = TurnedBack.apply(hidden)  # type: ignore[no-untyped-call]
            return self.head(hidden), self.domain(turned)

    def loss(model: nn.Module, batch: Any, progress: Progress) -> Tensor:
        x, y = batch
        logits, domain = model(x)
        side = (x[:, :1] > 0).to(x.dtype)
        adversary = F.binary_cross_entropy_with_logits(domain, side)
        return F.cross_entropy(logits, y) + 0.3 * adversary

    return Case(
        name="domain_adversary",
        model=Domains,
        batch=classes,
        loss=loss,
        optimizer=adam(5e-3),
        loader=loader_of(classes),
        predict=lambda model, batch: model(batch[0])[0],
    )


@fault("L048", says="of what backward() promises", cause="gradient-replaced",
       healthy=own_activation, source=TAXONOMY)  # fmt: skip
def own_backward_has_the_wrong_sign() -> Case:
    return regressed("own_backward_has_the_wrong_sign", lambda: Activated(Reversed))


@fault(cause="gradient-replaced", healthy=own_product, source=TAXONOMY)
def own_backward_lacks_a_factor() -> Case:
    return regressed("own_backward_lacks_a_factor", lambda: Multiplied(Unscaled))
