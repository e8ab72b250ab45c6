"""Faults in the mechanics of a loop and of its modules, planted in a plain classifier."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

import ris_diag
from ris_diag import Case, Declared, Epoch, Plan, Progress
from tests.faults.registry import (
    DEEPCRIME,
    HERE,
    OVERFLOW,
    RECIPE,
    SILENT,
    SLIPS,
    TAXONOMY,
    TRAINCHECK,
    fault,
)

FEATURES, CLASSES, WIDTH = 12, 4, 16
Batch = tuple[Tensor, Tensor]


def batch(split: str, seed: int, size: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(FEATURES, CLASSES, generator=torch.Generator().manual_seed(7))
    x = torch.randn(size, FEATURES, generator=generator)
    return x, (x @ directions).argmax(1)


class Classifier(nn.Module):
    """Batch norm and dropout between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES, WIDTH)
        self.norm = nn.BatchNorm1d(WIDTH)
        self.activation = nn.ReLU()
        self.dropout = nn.Dropout(0.1)
        self.last = nn.Linear(WIDTH, CLASSES)

    def features(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.dropout(self.activation(self.norm(self.first(x))))
        return hidden

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.features(x))
        return logits


def loss(model: nn.Module, batch: Batch, progress: Progress) -> Tensor:
    x, y = batch
    return nn.functional.cross_entropy(model(x), y)


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=1e-2)


@dataclass(frozen=True, kw_only=True)
class Loop:
    """Every field at its default is the healthy loop."""

    optimizer: Callable[[nn.Module], torch.optim.Optimizer] = adam
    batches: Callable[[Any], Iterator[Batch]] = iter
    clear: Callable[[torch.optim.Optimizer, int], None] = lambda optimizer, number: (
        optimizer.zero_grad()
    )
    factor: float = 1.0
    before_step: Callable[[nn.Module], Any] = lambda model: None
    after_step: Callable[[nn.Module], Any] = lambda model: None
    every: int = 1
    schedule: Callable[[torch.optim.Optimizer], Any] = lambda optimizer: None
    schedule_first: bool = False
    train: Callable[[nn.Module, int], Any] = lambda model, epoch: model.train()
    evaluate: Callable[[nn.Module], Any] = nn.Module.eval

    def __call__(self, model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = self.optimizer(model)
        scheduler = self.schedule(optimizer)
        history, number = [], 0
        for epoch in range(1, plan.epochs + 1):
            self.train(model, epoch)
            losses = []
            if scheduler is not None and self.schedule_first:
                scheduler.step()
            for served in self.batches(plan.train):
                number += 1
                self.clear(optimizer, number)
                total = loss(model, served, Progress(epoch=epoch, epochs=plan.epochs)) * self.factor
                plan.on_step(epoch, total)
                total.backward()  # type: ignore[no-untyped-call]
                self.before_step(model)
                if number % self.every == 0:
                    optimizer.step()
                self.after_step(model)
                losses.append(total.item())
            if scheduler is not None and not self.schedule_first:
                scheduler.step()
            self.evaluate(model)
            with torch.no_grad():
                for served in plan.validation:
                    loss(model, served, Progress(epoch=epoch, epochs=plan.epochs))
            history.append(Epoch(train=sum(losses) / len(losses)))
        return history


def predict(model: nn.Module, batch: Batch) -> Tensor:
    logits: Tensor = model(batch[0])
    return logits


PLAIN = Case(
    name="classifier", model=Classifier, batch=batch, loss=loss, fit=Loop(), predict=predict
)


def looped(**changes: Any) -> Case:
    return replace(PLAIN, fit=Loop(**changes))


def built(model: Callable[[], nn.Module], **parts: Any) -> Case:
    return replace(PLAIN, model=model, **parts)


def plain() -> Case:
    return PLAIN


def accumulating() -> Case:
    clear: Any = lambda optimizer, number: optimizer.zero_grad() if number % 2 else None  # noqa: E731
    return replace(looped(every=2, factor=0.5, clear=clear), declared=Declared(accumulation=2))


def declared_rate() -> Case:
    return replace(looped(), declared=Declared(learning_rate=1e-2))


def descending() -> Case:
    return looped(optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.05))


def frozen_first() -> nn.Module:
    classifier = Classifier()
    classifier.first.requires_grad_(False)
    return classifier


def first_is_frozen() -> Case:
    return built(frozen_first, declared=Declared(frozen=["first.*"]))


# ---- the step


@fault(
    "L011",
    says="12 steps use gradients to which those of the step before were added",
    cause="gradients-not-cleared",
    healthy=plain,
    within=(Loop,),
    source=SLIPS,
)
def never_clears_gradients() -> Case:
    # planted: never_clears_gradients
    return looped(clear=lambda optimizer, number: None)


@fault(
    "L011",
    says="cleared between the 2 backward passes",
    cause="accumulation-not-as-declared",
    healthy=accumulating,
    within=(Loop,),
    source="B1",
)
def clears_while_accumulating() -> Case:
    # planted: clears_while_accumulating
    return replace(looped(every=2, factor=0.5), declared=Declared(accumulation=2))


@fault(
    "L009",
    says="24 optimiser steps for 24 batches (4 epochs), 12 were planned",
    cause="accumulation-not-as-declared",
    healthy=accumulating,
    within=(Loop,),
    source="B1",
)
def steps_while_accumulating() -> Case:
    # planted: steps_while_accumulating
    return replace(looped(), declared=Declared(accumulation=2))


@fault(
    "L012",
    says="12 of 24 steps have no backward pass of their own",
    cause="step-without-backward",
    healthy=plain,
    within=(Loop,),
    source=TRAINCHECK,
)
def steps_twice() -> Case:
    class Twice(Loop):
        def __call__(self, model: nn.Module, plan: Plan) -> list[Epoch]:
            held = adam(model)
            # planted: steps_twice
            return Loop(optimizer=lambda model: held, after_step=lambda model: held.step())(
                model, plan
            )

    return replace(PLAIN, fit=Twice())


class Halving(torch.optim.lr_scheduler.StepLR):
    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        super().__init__(optimizer, 1, gamma=0.5)

    def step(self, epoch: int | None = None) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch notices this one, too
            super().step()


def halving() -> Case:
    return looped(schedule=Halving)


@fault(
    "L012",
    says="the scheduler steps in front of the first optimiser step",
    cause="scheduler-in-wrong-place",
    healthy=halving,
    within=(Loop,),
    source=SILENT,
)
def scheduler_steps_first() -> Case:
    # planted: scheduler_steps_first
    return looped(schedule=Halving, schedule_first=True)


def clipped() -> Case:
    return looped(
        before_step=lambda model: nn.utils.clip_grad_norm_(model.parameters(), 0.1),
    )


@fault(
    "L012",
    says="gradients shrank behind the step that used them",
    cause="clipping-in-wrong-place",
    healthy=clipped,
    within=(Loop,),
    source=SILENT,
)
def clips_behind_the_step() -> Case:
    return looped(
        # planted: clips_behind_the_step
        after_step=lambda model: nn.utils.clip_grad_norm_(model.parameters(), 0.1),
    )


def scaled_step(order: str) -> Callable[[ris_diag.Training, Batch, Progress], float]:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def step(training: ris_diag.Training, batch: Batch, progress: Progress) -> float:
        training.optimizer.zero_grad()
        total = loss(training.model, batch, progress)
        torch.autograd.backward(scaler.scale(total))
        if "u" in order and order.index("u") < order.index("c"):
            scaler.unscale_(training.optimizer)
        if "c" in order:
            nn.utils.clip_grad_norm_(training.model.parameters(), 0.1)
        if "s" in order:
            scaler.step(training.optimizer)
            scaler.update()
        else:
            training.optimizer.step()
        return total.item()

    return step


def scaled_and_clipped() -> Case:
    return replace(PLAIN, fit=None, optimizer=adam, step=scaled_step("ucs"))


def scaled() -> Case:
    return replace(PLAIN, fit=None, optimizer=adam, step=scaled_step("s"))


@fault(
    "L012",
    says="gradients shrank before they were unscaled",
    cause="clipping-in-wrong-place",
    healthy=scaled_and_clipped,
    within=(scaled_step,),
    source=SILENT,
)
def clips_scaled_gradients() -> Case:
    # planted: clips_scaled_gradients
    return replace(PLAIN, fit=None, optimizer=adam, step=scaled_step("cs"))


@fault(
    "L012",
    says="the loss was scaled, the gradients were never unscaled",
    cause="scaler-misused",
    healthy=scaled,
    within=(scaled_step,),
    source=SILENT,
)
def steps_past_the_scaler() -> Case:
    # planted: steps_past_the_scaler
    return replace(PLAIN, fit=None, optimizer=adam, step=scaled_step("o"))


@fault(
    "L017",
    says="the learning rate is not above 0",
    cause=("schedule-runs-out", "learning-rate-zero"),
    healthy=plain,
    within=(Loop,),
    source=SILENT,
)
def schedule_is_over_at_once() -> Case:
    # planted: schedule_is_over_at_once
    return looped(schedule=lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda e: float(e < 1)))


@fault(
    "L017",
    says="0.01, declared 0.001",
    cause="learning-rate-not-as-declared",
    healthy=declared_rate,
    proof=lambda: adam(Classifier()).param_groups[0]["lr"] != 1e-3,
    within=(Loop,),
    source=TAXONOMY,
)
def another_learning_rate_than_declared() -> Case:
    # planted: another_learning_rate_than_declared
    return replace(PLAIN, declared=Declared(learning_rate=1e-3))


@fault(
    "L018",
    says="too small by orders of magnitude",
    cause="learning-rate-too-small",
    healthy=plain,
    within=(Loop,),
    source=f"{DEEPCRIME}, HLR",
)
def learning_rate_far_too_small() -> Case:
    # planted: learning_rate_far_too_small
    return looped(optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=1e-9))


@fault(
    "L018",
    says="too large by orders of magnitude",
    cause="learning-rate-too-large",
    healthy=plain,
    within=(Loop,),
    source=f"{DEEPCRIME}, HLR",
)
def learning_rate_far_too_large() -> Case:
    # planted: learning_rate_far_too_large
    return looped(optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=10.0))


@fault(
    "L018",
    says="clipping leaves",
    cause="clipped-to-nothing",
    healthy=plain,
    within=(Loop,),
    source=f"{DEEPCRIME}, OCG",
)
def clipped_to_nothing() -> Case:
    # planted: clipped_to_nothing
    return looped(before_step=lambda model: nn.utils.clip_grad_norm_(model.parameters(), 1e-6))


@fault(
    "L018",
    says="weight decay takes 10.0% of every weight",
    cause="weight-decay-too-strong",
    healthy=plain,
    within=(Loop,),
    source=f"{DEEPCRIME}, RAW",
)
def weight_decay_eats_the_weights() -> Case:
    return looped(
        # planted: weight_decay_eats_the_weights
        optimizer=lambda model: torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=10.0)
    )


@fault(
    "L019",
    says="one and the same input in all of 12 training calls",
    cause="one-batch-for-ever",
    healthy=plain,
    within=(Loop,),
    source=RECIPE,
)
def one_batch_for_ever() -> Case:
    def first_only(batches: Any) -> Iterator[Batch]:
        first = next(iter(batches))
        # planted: one_batch_for_ever
        return (first for _ in batches)

    return looped(batches=first_only)


@fault(
    "L020",
    says="losses are not finite",
    cause="operation-not-finite",
    healthy=plain,
    within=(Loop,),
    source=TAXONOMY,
)
def loss_is_nan() -> Case:
    # planted: loss_is_nan
    return looped(factor=float("nan"))


@fault(
    "L020",
    says="gradients or weights are not finite",
    cause="gradient-not-finite",
    healthy=plain,
    source=SILENT,
)
def gradient_is_infinite() -> Case:
    class Rooted(Classifier):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            # planted: gradient_is_infinite
            return logits + (logits * 0).abs().sqrt()

    return built(Rooted)


# ---- parameters


@fault(
    "L013",
    says="5 of 6 trainable parameters are in no optimiser",
    cause="parameters-not-in-optimiser",
    place=(HERE, "first.weight", "last.weight"),
    healthy=plain,
    within=(Loop,),
    source=TRAINCHECK,
)
def optimiser_of_a_part() -> Case:
    # planted: optimiser_of_a_part
    return looped(optimizer=lambda model: torch.optim.Adam([model.get_parameter("last.bias")]))


@fault(
    "L013",
    says="6 of 6 trainable parameters are in no optimiser",
    cause="parameters-not-in-optimiser",
    place=(HERE, "first.weight", "last.weight"),
    healthy=plain,
    within=(Loop,),
    source=TRAINCHECK,
)
def optimiser_of_another_model() -> Case:
    # planted: optimiser_of_another_model
    return looped(optimizer=lambda model: adam(Classifier()))


@fault(
    "L013",
    says="parameters are held twice",
    cause="parameters-held-twice",
    healthy=plain,
    within=(Loop,),
    source=TRAINCHECK,
)
def parameters_held_twice() -> Case:
    class Twice(Loop):
        def __call__(self, model: nn.Module, plan: Plan) -> list[Epoch]:
            # planted: parameters_held_twice
            second = torch.optim.SGD(model.parameters(), lr=1e-3)
            return Loop(after_step=lambda model: second.step())(model, plan)

    return replace(PLAIN, fit=Twice())


@fault(
    "L014",
    says="cut by detach()\n  Place: tests/faults/mechanics.py:",
    cause="graph-is-cut",
    place=(HERE, "first"),
    healthy=plain,
    source=RECIPE,
)
def features_are_detached() -> Case:
    class Detached(Classifier):
        def features(self, x: Tensor) -> Tensor:
            # planted: features_are_detached
            return super().features(x).detach()

    return built(Detached)


@fault(
    "L014",
    says="get a gradient of exactly 0",
    cause="part-multiplied-by-zero",
    place=(HERE, "first"),
    healthy=plain,
    source=TAXONOMY,
)
def features_are_masked_out() -> Case:
    class Masked(Classifier):
        def features(self, x: Tensor) -> Tensor:
            # planted: features_are_masked_out
            return super().features(x) * 0

    return built(Masked)


@fault(
    "L015",
    says="don't move",
    cause="optimiser-does-nothing",
    healthy=plain,
    within=(Loop,),
    source=TRAINCHECK,
)
def weights_are_put_back() -> Case:
    class Stuck(torch.optim.SGD):
        # planted: weights_are_put_back
        def step(self, closure: Any = None) -> None:  # type: ignore[override]  # returns nothing
            """Computes the update and forgets to apply it."""

    return looped(optimizer=lambda model: Stuck(model.parameters(), lr=0.1))


@fault(
    "L015",
    says="2 of 6 parameters with a gradient don't move",
    cause="learning-rate-zero",
    place=(HERE, "last"),
    healthy=plain,
    within=(Loop,),
    source=TAXONOMY,
)
def one_group_without_learning_rate() -> Case:
    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        named = dict(model.named_parameters())
        last = [named.pop("last.weight"), named.pop("last.bias")]
        rest = list(named.values())
        # planted: one_group_without_learning_rate
        groups: list[dict[str, Any]] = [{"params": last, "lr": 0.0}, {"params": rest}]
        return torch.optim.Adam(groups)

    return looped(optimizer=optimizer)


@fault(
    "L016",
    says="2 parameters that are declared frozen move (first.weight, first.bias)",
    cause="frozen-not-as-declared",
    place=(HERE, "first"),
    healthy=first_is_frozen,
    within=(Loop,),
    source=TAXONOMY,
)
def frozen_part_drifts() -> Case:
    # planted: frozen_part_drifts
    return replace(PLAIN, declared=Declared(frozen=["first.*"]))


@fault(
    "L016",
    says="2 parameters are frozen and not declared so (first.weight, first.bias)",
    cause="frozen-not-as-declared",
    place=(HERE, "first"),
    healthy=plain,
    source=TAXONOMY,
)
def frozen_by_mistake() -> Case:
    def model() -> nn.Module:
        classifier = Classifier()
        # planted: frozen_by_mistake
        classifier.first.requires_grad_(False)
        return classifier

    return built(model)


class ListOfLayers(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.extra = [nn.Linear(WIDTH, WIDTH)]

    def features(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.extra[0](super().features(x))
        return hidden


@fault(
    "L021",
    says="extra[0].weight",
    cause="parameter-not-registered",
    place=(HERE, "extra"),
    healthy=plain,
    within=(ListOfLayers,),
    source=OVERFLOW,
)
def layers_in_a_plain_list() -> Case:
    # planted: layers_in_a_plain_list
    return built(ListOfLayers)


@fault(
    "L021",
    says="scale",
    cause="parameter-not-registered",
    place=(HERE, "scale"),
    healthy=plain,
    source=OVERFLOW,
)
def a_tensor_that_is_no_parameter() -> Case:
    class Scaled(Classifier):
        def __init__(self) -> None:
            super().__init__()
            # planted: a_tensor_that_is_no_parameter
            self.scale = torch.ones(WIDTH, requires_grad=True)

        def features(self, x: Tensor) -> Tensor:
            return super().features(x) * self.scale

    return built(Scaled)


class Tied(nn.Module):
    """Decodes with the transposed weights of its encoder."""

    def __init__(self, *, tied: bool = True) -> None:
        super().__init__()
        self.encoder = nn.Linear(FEATURES, FEATURES, bias=False)
        self.decoder = nn.Linear(FEATURES, CLASSES)
        self.middle = nn.Linear(FEATURES, FEATURES, bias=False)
        if tied:
            self.middle.weight = self.encoder.weight

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.decoder(self.middle(self.encoder(x).tanh()).tanh())
        return logits


TIES = Declared(tied=[["encoder.weight", "middle.weight"]])


def tied() -> Case:
    return built(Tied, declared=TIES)


def untied() -> Case:
    return built(lambda: Tied(tied=False), declared=Declared(tied=[]))


@fault(
    "L022",
    says="declared tied, but not in a fresh model: encoder.weight = middle.weight",
    cause="ties-not-as-declared",
    place=(HERE, "encoder.weight", "middle.weight"),
    healthy=tied,
    within=(Tied,),
    source=SILENT,
)
def tie_was_never_made() -> Case:
    # planted: tie_was_never_made
    return built(lambda: Tied(tied=False), declared=TIES)


@fault(
    "L022",
    says="no longer one tensor behind the training",
    cause="ties-not-as-declared",
    place=(HERE, "encoder.weight", "middle.weight"),
    healthy=tied,
    within=(Tied, Loop),
    source=SILENT,
)
def tie_is_cut_while_training() -> Case:
    def cut(model: nn.Module) -> None:
        middle = model.get_submodule("middle")
        # planted: tie_is_cut_while_training
        middle.weight = nn.Parameter(middle.get_parameter("weight").detach().clone())

    return replace(looped(after_step=cut), model=Tied)


@fault(
    "L022",
    says="one tensor without being declared tied",
    cause="ties-not-as-declared",
    place=(HERE, "encoder.weight", "middle.weight"),
    healthy=untied,
    within=(Tied,),
    source=SILENT,
)
def tie_that_nobody_declared() -> Case:
    # planted: tie_that_nobody_declared
    return built(Tied, declared=Declared(tied=[]))


# ---- modules


@fault(
    "L023",
    says="1 modules with trainable parameters are never called (unused)",
    cause="module-never-used",
    place=(HERE, "unused"),
    healthy=plain,
    source=TAXONOMY,
)
def layer_is_never_called() -> Case:
    class Forgetful(Classifier):
        def __init__(self) -> None:
            super().__init__()
            # planted: layer_is_never_called
            self.unused = nn.Linear(WIDTH, WIDTH)

    return built(Forgetful)


@fault(
    "L024",
    says="9 of 12 training calls are in eval mode",
    cause="eval-mode-while-training",
    healthy=plain,
    within=(Loop,),
    source=SLIPS,
)
def stays_in_eval_mode() -> Case:
    # planted: stays_in_eval_mode
    return looped(train=lambda model, epoch: model.train() if epoch == 1 else None)


@fault(
    "L024",
    says="4 of 4 validation calls are in train mode",
    cause="train-mode-while-validating",
    healthy=plain,
    within=(Loop,),
    source=SLIPS,
)
def validates_in_train_mode() -> Case:
    # planted: validates_in_train_mode
    return looped(evaluate=lambda model: None)


@fault(
    "L025",
    says="batch norm gets fewer than 4 values a channel (norm: 2)",
    cause="batch-norm-statistics",
    place=(HERE, "norm"),
    healthy=plain,
    source=SILENT,
)
def two_values_a_channel() -> Case:
    class Pairs(Classifier):
        def features(self, x: Tensor) -> Tensor:
            # planted: two_values_a_channel
            return torch.cat([super(Pairs, self).features(pair) for pair in torch.split(x, 2)])

    return built(Pairs)


@fault(
    "L025",
    says="the running statistics of norm (momentum 0) don't move",
    cause="batch-norm-statistics",
    place=(HERE, "norm"),
    healthy=plain,
    source=SILENT,
)
def statistics_do_not_move() -> Case:
    class Still(Classifier):
        def __init__(self) -> None:
            super().__init__()
            # planted: statistics_do_not_move
            self.norm = nn.BatchNorm1d(WIDTH, momentum=0.0)

    return built(Still)


@fault(
    "L026",
    says="two predictions of one batch in eval mode differ",
    cause="noise-at-inference",
    healthy=plain,
    within=(predict,),
    source=SILENT,
)
def dropout_at_inference() -> Case:
    class Functional(Classifier):
        def features(self, x: Tensor) -> Tensor:
            # planted: dropout_at_inference
            return nn.functional.dropout(super().features(x), 0.3)

    return built(Functional)


@fault(
    "L027",
    says="with the samples beside it",
    cause="samples-mix",
    healthy=plain,
    within=(predict,),
    source=RECIPE,
)
def centred_by_the_batch() -> Case:
    class Centred(Classifier):
        def features(self, x: Tensor) -> Tensor:
            # planted: centred_by_the_batch
            return super().features(x - x.mean(0))

    return built(Centred)


@fault(
    "L028",
    says="activations are dead or saturated (activation: 100%",
    cause="dead-activations",
    place=(HERE, "activation"),
    healthy=plain,
    source=RECIPE,
)
def dead_from_the_start() -> Case:
    def model() -> nn.Module:
        classifier = Classifier()
        # planted: dead_from_the_start
        nn.init.constant_(classifier.norm.bias, -50.0)
        return classifier

    return built(model)


@fault(
    "L028",
    says="units that start alike and stay alike",
    cause="units-start-alike",
    place=(HERE, "first"),
    healthy=plain,
    source=f"{DEEPCRIME}, WCI",
)
def constant_initialisation() -> Case:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(FEATURES, WIDTH), nn.Linear(WIDTH, CLASSES)
            for layer in (self.first, self.last):
                # planted: constant_initialisation
                nn.init.constant_(layer.weight, 0.1)
                nn.init.zeros_(layer.bias)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.last(self.first(x).tanh())
            return logits

    return built(Plain)


@fault(
    "L028",
    says="all weight matrices are zero",
    cause="all-weights-zero",
    healthy=plain,
    source=f"{DEEPCRIME}, WCI",
)
def all_weights_start_at_zero() -> Case:
    def model() -> nn.Module:
        classifier = Classifier()
        for parameter in classifier.parameters():
            # planted: all_weights_start_at_zero
            nn.init.zeros_(parameter)
        return classifier

    return built(model)


@fault(
    "O001",
    says="it learns, but not all of it",
    cause="capacity-too-small",
    healthy=plain,
    source=f"{DEEPCRIME}, ANN",
)
def too_small_to_memorise() -> Case:
    class Narrow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # planted: too_small_to_memorise
            self.first, self.last = nn.Linear(FEATURES, 1), nn.Linear(1, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.last(self.first(x))
            return logits

    return built(Narrow)


@fault(
    "O001",
    "L015",
    says="it does not learn",
    cause="learning-rate-zero",
    healthy=plain,
    within=(Loop,),
    source=TAXONOMY,
)
def memorises_nothing() -> Case:
    # planted: memorises_nothing
    return looped(optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.0))


def cut_by(cut: Callable[[Tensor], Tensor]) -> Case:
    class Cut(Classifier):
        def features(self, x: Tensor) -> Tensor:
            return cut(super().features(x))

    return built(Cut)


@fault(
    "L014",
    says="cut by .data\n  Place: tests/faults/mechanics.py:",
    cause="graph-is-cut",
    place=(HERE, "first"),
    healthy=plain,
    within=(cut_by,),
    source=RECIPE,
)
def features_by_data() -> Case:
    # planted: features_by_data
    return cut_by(lambda hidden: hidden.data)


@fault(
    "L014",
    says="cut by tolist()\n  Place: tests/faults/mechanics.py:",
    cause="graph-is-cut",
    place=(HERE, "first"),
    healthy=plain,
    within=(cut_by,),
    source=RECIPE,
)
def features_through_lists() -> Case:
    # planted: features_through_lists
    return cut_by(lambda hidden: torch.tensor(hidden.tolist()))


@fault(
    "L014",
    says="under no_grad\n  Place: tests/faults/mechanics.py:",
    cause="graph-is-cut",
    place=(HERE, "first"),
    healthy=plain,
    within=(Classifier.features,),
    source=RECIPE,
)
def features_under_no_grad() -> Case:
    class Frozen(Classifier):
        def features(self, x: Tensor) -> Tensor:
            # planted: features_under_no_grad
            with torch.no_grad():
                return super().features(x)

    return built(Frozen)


@fault(
    "L014",
    says="cut by argmax()\n  Place: tests/faults/mechanics.py:",
    cause="graph-is-cut",
    place=(HERE, "first"),
    healthy=plain,
    within=(cut_by,),
    source=RECIPE,
)
def features_by_choice() -> Case:
    # planted: features_by_choice
    return cut_by(lambda hidden: nn.functional.one_hot(hidden.argmax(1), WIDTH).float())


@fault(
    "L009",
    says="the loop went on behind 12 exceptions (RuntimeError in a call of Picky)",
    cause="exceptions-swallowed",
    healthy=plain,
    source="B1",
)
def exceptions_are_swallowed() -> Case:
    class Picky(Classifier):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                raise RuntimeError("sizes of tensors must match")
            return super().forward(x)

    def fit(model: nn.Module, plan: Plan) -> list[Epoch]:
        optimizer = adam(model)
        for epoch in range(1, plan.epochs + 1):
            for served in plan.train:
                try:
                    total = loss(model.train(), served, Progress(epoch=epoch, epochs=plan.epochs))
                    optimizer.zero_grad()
                    torch.autograd.backward(total)
                    optimizer.step()
                # planted: exceptions_are_swallowed
                except Exception:  # noqa: BLE001, S112  # the fault
                    continue
        return [Epoch(train=1.0)] * plan.epochs

    return built(Picky, fit=fit)


@fault(
    "L001",
    says="the updates climb the gradient",
    cause="wrong-sign",
    healthy=descending,
    within=(Loop,),
    source=TAXONOMY,
)
def climbs_the_gradient() -> Case:
    return looped(
        # planted: climbs_the_gradient
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.05, maximize=True)
    )


# ---- fresh samples


def loader(split: str, seed: int) -> list[Batch]:
    return [batch(split, seed * 100 + k, 32) for k in range(8)]


def metric(model: nn.Module, batch: Batch) -> float:
    return loss(model, batch, Progress(epoch=1, epochs=1)).item()


def of_a_constant(batch: Batch) -> float:
    shares = torch.bincount(batch[1], minlength=CLASSES) / len(batch[1])
    return float(-(shares * shares.clamp(min=1e-6).log()).sum())


JUDGED = replace(PLAIN, loader=loader, metric=metric, baselines={"constant": of_a_constant})


def judged() -> Case:
    return JUDGED


@fault(
    "O004",
    says="the metric on fresh samples went from",
    cause="metric-of-other-weights",
    healthy=judged,
    within=(metric,),
    source="B7",
)
def metric_of_another_model() -> Case:
    stale = Classifier().eval()
    # planted: metric_of_another_model
    return replace(JUDGED, metric=lambda model, batch: metric(stale, batch))


@fault(
    "O004",
    says="the metric is",
    cause="learnt-nothing-new",
    healthy=judged,
    within=(metric,),
    source=RECIPE,
)
def no_better_than_what_is_free() -> Case:
    # planted: no_better_than_what_is_free
    return replace(JUDGED, baselines={"the label itself": lambda batch: 0.0})


@fault(
    "L016",
    says="no parameter fits Declared.frozen backbone.*",
    cause="frozen-not-as-declared",
    place=(HERE, "backbone"),
    healthy=first_is_frozen,
    proof=lambda: all("backbone" not in name for name, _ in Classifier().named_parameters()),
    within=(Classifier,),
    source=TAXONOMY,
)
def frozen_pattern_that_fits_nothing() -> Case:
    # planted: frozen_pattern_that_fits_nothing
    return replace(PLAIN, declared=Declared(frozen=["backbone.*"]))


def rebuilding_fit(model: nn.Module, plan: Plan) -> list[Epoch]:
    history = []
    for _ in range(plan.epochs):
        history += Loop()(model, replace(plan, epochs=1))
    return history


@fault(
    "L013",
    says="the optimiser was built 4 times in 12 steps",
    cause="optimiser-rebuilt",
    healthy=plain,
    within=(rebuilding_fit, Loop),
    source=TRAINCHECK,
)
def optimiser_anew_in_every_epoch() -> Case:
    # planted: optimiser_anew_in_every_epoch
    return replace(PLAIN, fit=rebuilding_fit)


@fault(
    "L012",
    "L018",
    says="12 of 12 steps find no gradient, though backward() left some",
    cause="gradients-cleared-too-soon",
    healthy=plain,
    within=(Loop,),
    source=TRAINCHECK,
)
def clears_between_backward_and_step() -> Case:
    # planted: clears_between_backward_and_step
    return looped(before_step=lambda model: model.zero_grad())


class Sequence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells, self.last = self.recurrent(), nn.Linear(WIDTH, CLASSES)

    def recurrent(self) -> nn.GRU:
        return nn.GRU(3, WIDTH, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.cells(x.reshape(len(x), 4, 3))[0]
        logits: Tensor = self.last(hidden[:, -1])
        return logits


def recurrent() -> Case:
    return built(Sequence)


@fault(
    "L027",
    says="with the samples beside it",
    cause="samples-mix",
    healthy=recurrent,
    within=(predict,),
    source=SLIPS,
)
def batch_taken_for_time() -> Case:
    class Across(Sequence):
        def recurrent(self) -> nn.GRU:
            return nn.GRU(3, WIDTH)  # planted: batch_taken_for_time

    return built(Across)


def script(**changes: Any) -> Case:
    """The same loop as a script, which nobody gives a plan."""

    def main() -> None:
        batches = [batch("train", k, 16) for k in range(6)]
        Loop(**changes)(Classifier(), Plan(epochs=20, train=batches))

    return Case(name="script", main=main)


@fault(
    "L024",
    says="all 12 calls with a gradient are in eval mode",
    cause="eval-mode-while-training",
    healthy=script,
    within=(Loop,),
    source=SLIPS,
)
def script_trains_in_eval_mode() -> Case:
    # planted: script_trains_in_eval_mode
    return script(train=lambda model, epoch: model.eval())


@fault(
    "L009",
    says="12 optimiser steps for 72 backward passes",
    cause="steps-missing",
    healthy=script,
    within=(Loop,),
    source="B1",
)
def script_steps_once_an_epoch() -> Case:
    # planted: script_steps_once_an_epoch
    return script(every=6, clear=lambda o, n: o.zero_grad() if n % 6 == 1 else None)


def one_number() -> Case:
    return replace(
        PLAIN,
        model=lambda: nn.Linear(FEATURES, 1),
        loss=lambda model, batch, progress: (model(batch[0]) - batch[0][:, :1]).square().mean(),
        truth=lambda batch: batch[0][:, :1],
        fit=None,
        optimizer=adam,
    )


@fault(
    "G007",
    says="the prediction is [7, 1] and the truth [7] for 7 samples (limit 0 dimensions",
    cause="broadcast-in-loss",
    healthy=one_number,
    source=OVERFLOW,
)
def target_broadcasts() -> Case:
    return replace(
        PLAIN,
        model=lambda: nn.Linear(FEATURES, 1),
        # planted: target_broadcasts
        loss=lambda model, batch, progress: (model(batch[0]) - batch[0][:, 0]).square().mean(),
        truth=lambda batch: batch[0][:, 0],
        fit=None,
        optimizer=adam,
    )
