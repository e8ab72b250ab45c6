"""Faults in the validation of a loop that keeps its batches."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ris_diag import Case, Epoch, Plan
from tests.faults.registry import OVERFLOW, SLIPS, fault
from tests.faults.zoo_grounds import stripes
from tests.faults.zoo_judged import UNIT, prices_with_their_perfect_output
from tests.faults.zoo_parts import classes, healthy, supervised


def judged_behind(model: nn.Module, kept: list[Any]) -> float:
    with torch.no_grad():
        return sum(float(F.cross_entropy(model(x), y)) for x, y in kept) / max(1, len(kept))


def keeps_its_batches(ground: Case, *, back_to_eval: bool) -> Case:
    """A loop that reads all validation batches first, and judges by them behind that."""

    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

        def step(epoch: int, batch: Any) -> float:
            x, y = batch
            loss: Any = F.cross_entropy(model(x), y)
            plan.on_step(epoch, loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return float(loss.detach())

        history = []
        for epoch in range(1, plan.epochs + 1):
            model.train()
            losses = [step(epoch, batch) for batch in plan.train]
            kept = list(plan.validation)
            if back_to_eval:
                model.eval()
            held = judged_behind(model, kept) if kept else None
            history.append(Epoch(train=sum(losses) / len(losses), validation=held))
        return history

    return replace(ground, fit=fit)


class Blurred(nn.Module):
    """Adds noise of its own to what it has read, while it is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.head = nn.Linear(8, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        states = F.relu(self.read(x))
        if self.training:
            states = states + 0.5 * torch.randn_like(states)
        logits: Tensor = self.head(states)
        return logits


def blurred() -> Case:
    return supervised(
        "blurred",
        Blurred,
        classes,
        F.cross_entropy,
        truth=lambda batch: batch[1],
    )


@healthy
def images_judged_by_kept_batches() -> Case:
    return replace(
        keeps_its_batches(stripes(), back_to_eval=True), name="images_judged_by_kept_batches"
    )


@healthy
def noise_while_it_is_trained() -> Case:
    return replace(
        keeps_its_batches(blurred(), back_to_eval=True), name="noise_while_it_is_trained"
    )


@fault(
    cause="train-mode-while-validating",
    healthy=images_judged_by_kept_batches,
    source=SLIPS,
    within=(keeps_its_batches,),
)
def judges_kept_batches_in_train_mode() -> Case:
    # planted: judges_kept_batches_in_train_mode
    return keeps_its_batches(stripes(), back_to_eval=False)


@fault(
    cause="train-mode-while-validating",
    healthy=noise_while_it_is_trained,
    source=OVERFLOW,
    within=(keeps_its_batches,),
)
def judges_with_the_noise_of_training() -> Case:
    # planted: judges_with_the_noise_of_training
    return keeps_its_batches(blurred(), back_to_eval=False)


@fault(
    cause="inference-differs-from-training",
    healthy=prices_with_their_perfect_output,
    source=SLIPS,
)
def prices_without_their_mean() -> Case:
    def predict(model: nn.Module, batch: Any) -> Tensor:
        output: Tensor = model(batch[0])
        return UNIT * output.squeeze(-1)  # planted: prices_without_their_mean

    return replace(
        prices_with_their_perfect_output(),
        predict=predict,
        metric=lambda model, batch: (predict(model, batch) - batch[1]).abs().mean().detach(),
    )
