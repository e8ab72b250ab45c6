"""A second training loop, written apart from the reference one, with switches for its faults."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from model.blend import BlendSchedule
from model.case import as_losses
from model.loss import DualLoss, DualLossValue, LossWeights
from model.scene import Scenes
from ris_diag import Epoch, Losses, Plan

log = logging.getLogger("users.training")


def dual_loss(criterion: DualLoss, model: nn.Module, scenes: Scenes, beta: float) -> DualLossValue:
    value: DualLossValue = criterion(model(scenes.X), scenes.R_samp, scenes.R_true, beta)
    return value


@dataclass(frozen=True, kw_only=True)
class Loop:
    """Every field at its default is the healthy loop."""

    learning_rate: float = 6e-3
    step_every_batch: bool = True
    report: Callable[[list[float]], float] = lambda losses: sum(losses) / len(losses)
    say: Callable[[str], None] = log.info
    schedule: Callable[[int, int], float] = BlendSchedule().beta
    loss: Callable[[DualLoss, nn.Module, Scenes, float], DualLossValue] = dual_loss
    weights: LossWeights = LossWeights()  # noqa: RUF009  # frozen
    show: Callable[[DualLossValue], Losses] = as_losses
    optimised: Callable[[nn.Module], nn.Module] = lambda model: model

    def __call__(self, model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.Adam(self.optimised(model).parameters(), lr=self.learning_rate)
        criterion = DualLoss(self.weights)
        warmup = max(2, int(0.2 * plan.epochs))
        self.say(f"lam_cov={self.weights.lam_cov} lam_cov_pred={self.weights.lam_cov_pred}")
        self.say(f"[Beta Warmup] Annealing beta from 0.00 -> 0.30 over {warmup} epochs")
        history = []
        for epoch in range(1, plan.epochs + 1):
            beta = self.schedule(epoch, plan.epochs) if plan.beta is None else plan.beta
            self.say(f"epoch {epoch}: beta={beta:.3f}")
            losses: list[float] = []
            model.train()
            for scenes in plan.train:
                value = self.loss(criterion.train(), model, scenes, beta)
                plan.on_step(epoch, self.show(value))
                if self.step_every_batch:
                    optimizer.zero_grad()
                torch.autograd.backward(value.total)
                if self.step_every_batch:
                    optimizer.step()
                losses.append(float(value.total.detach()))
                if epoch == 1:
                    self._log_first(value, scenes, model)
            if not self.step_every_batch:
                optimizer.step()
                optimizer.zero_grad()
            model.eval()
            with torch.no_grad():
                held_out = [
                    float(dual_loss(criterion.eval(), model, scenes, beta).total)
                    for scenes in plan.validation
                ]
            validation = sum(held_out) / len(held_out) if held_out else None
            history.append(Epoch(train=self.report(losses), validation=validation))
        return history

    def _log_first(self, value: DualLossValue, scenes: Scenes, model: nn.Module) -> None:
        error = float((value.R_blend.detach() - scenes.R_true).norm())
        norms = [float(p.grad.norm()) for p in model.parameters() if p.grad is not None]
        self.say(
            f"loss terms: {float(value.cov.detach()):.4f} {float(value.cov_pred.detach()):.4f}"
        )
        self.say(f"R_blend.requires_grad={value.R_blend.requires_grad}")
        self.say(f"||R_hat - R_true||_F={error:.4f} grad_norm={sum(norms):.4f}")


def with_total(
    value: DualLossValue, main: float | None = None, auxiliary: float | None = None
) -> DualLossValue:
    """The loss value with its total built from other weights."""
    weights = LossWeights()
    main = weights.lam_cov if main is None else main
    auxiliary = weights.lam_cov_pred if auxiliary is None else auxiliary
    return value._replace(total=main * value.cov + auxiliary * value.cov_pred)


HEALTHY_LOOP = Loop()


def loop(**changes: object) -> Loop:
    """The healthy loop with some switches changed."""
    return replace(HEALTHY_LOOP, **changes)  # type: ignore[arg-type]  # switches by name
