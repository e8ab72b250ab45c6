"""Faults in the mechanics of a loop and of its modules, planted in a plain classifier."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

import ris_diag
from ris_diag import Case, Declared, Epoch, Plan, Progress
from tests.faults.registry import fault

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
                total = loss(model, served, Progress(epoch=epoch, epochs=plan.epochs))
                (total * self.factor).backward()  # type: ignore[no-untyped-call]
                self.before_step(model)
                if number % self.every == 0:
                    optimizer.step()
                self.after_step(model)
                losses.append(total.item() * self.factor)
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


# ---- the step


@fault("L011", says="12 steps use gradients to which those of the step before were added")
def never_clears_gradients() -> Case:
    return looped(clear=lambda optimizer, number: None)


@fault("L011", says="cleared between the 2 backward passes")
def clears_while_accumulating() -> Case:
    return replace(looped(every=2, factor=0.5), declared=Declared(accumulation=2))


@fault("L009", says="24 optimiser steps for 24 batches (4 epochs), 12 were planned")
def steps_while_accumulating() -> Case:
    return replace(looped(), declared=Declared(accumulation=2))


@fault("L012", says="12 of 24 steps have no backward pass of their own")
def steps_twice() -> Case:
    class Twice(Loop):
        def __call__(self, model: nn.Module, plan: Plan) -> list[Epoch]:
            held = adam(model)
            return Loop(optimizer=lambda model: held, after_step=lambda model: held.step())(
                model, plan
            )

    return replace(PLAIN, fit=Twice())


class Halving(torch.optim.lr_scheduler.StepLR):
    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        super().__init__(optimizer, 100)

    def step(self, epoch: int | None = None) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch notices this one, too
            super().step()


@fault("L012", says="the scheduler steps in front of the first optimiser step")
def scheduler_steps_first() -> Case:
    return looped(schedule=Halving, schedule_first=True)


@fault("L012", says="gradients shrank behind the step that used them")
def clips_behind_the_step() -> Case:
    return looped(
        after_step=lambda model: nn.utils.clip_grad_norm_(model.parameters(), 1e-3),
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


@fault("L012", says="gradients shrank before they were unscaled")
def clips_scaled_gradients() -> Case:
    return replace(PLAIN, fit=None, optimizer=adam, step=scaled_step("cs"))


@fault("L012", says="the loss was scaled, the gradients were never unscaled")
def steps_past_the_scaler() -> Case:
    return replace(PLAIN, fit=None, optimizer=adam, step=scaled_step("o"))


@fault("L017", says="the learning rate is not above 0")
def schedule_is_over_at_once() -> Case:
    return looped(schedule=lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda e: float(e < 1)))


@fault("L017", says="0.01, declared 0.001")
def another_learning_rate_than_declared() -> Case:
    return replace(PLAIN, declared=Declared(learning_rate=1e-3))


@fault("L018", says="too small by orders of magnitude")
def learning_rate_far_too_small() -> Case:
    return looped(optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=1e-9))


@fault("L018", says="too large by orders of magnitude")
def learning_rate_far_too_large() -> Case:
    return looped(optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=10.0))


@fault("L018", says="clipping leaves")
def clipped_to_nothing() -> Case:
    return looped(before_step=lambda model: nn.utils.clip_grad_norm_(model.parameters(), 1e-6))


@fault("L018", says="weight decay takes 10.0% of every weight")
def weight_decay_eats_the_weights() -> Case:
    return looped(
        optimizer=lambda model: torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=10.0)
    )


@fault("L019", says="one and the same input in all of 12 training calls")
def one_batch_for_ever() -> Case:
    def first_only(batches: Any) -> Iterator[Batch]:
        first = next(iter(batches))
        return (first for _ in batches)

    return looped(batches=first_only)


@fault("L020", says="losses are not finite")
def loss_is_nan() -> Case:
    return looped(factor=float("nan"))


@fault("L020", says="gradients or weights are not finite")
def gradient_is_infinite() -> Case:
    class Rooted(Classifier):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            return logits + (logits * 0).abs().sqrt()

    return built(Rooted)


# ---- parameters


@fault("L013", says="5 of 6 trainable parameters are in no optimiser")
def optimiser_of_a_part() -> Case:
    return looped(optimizer=lambda model: torch.optim.Adam([model.get_parameter("last.bias")]))


@fault("L013", says="6 of 6 trainable parameters are in no optimiser")
def optimiser_of_another_model() -> Case:
    return looped(optimizer=lambda model: adam(Classifier()))


@fault("L013", says="parameters are held twice")
def parameters_held_twice() -> Case:
    class Twice(Loop):
        def __call__(self, model: nn.Module, plan: Plan) -> list[Epoch]:
            second = torch.optim.SGD(model.parameters(), lr=1e-3)
            return Loop(after_step=lambda model: second.step())(model, plan)

    return replace(PLAIN, fit=Twice())


@fault("L014", says="cut by detach()\n  Place: tests/faults/mechanics.py:")
def features_are_detached() -> Case:
    class Detached(Classifier):
        def features(self, x: Tensor) -> Tensor:
            return super().features(x).detach()

    return built(Detached)


@fault("L014", says="get a gradient of exactly 0")
def features_are_masked_out() -> Case:
    class Masked(Classifier):
        def features(self, x: Tensor) -> Tensor:
            return super().features(x) * 0

    return built(Masked)


@fault("L015", says="don't move")
def weights_are_put_back() -> Case:
    class Stuck(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]  # returns nothing
            """Computes the update and forgets to apply it."""

    return looped(optimizer=lambda model: Stuck(model.parameters(), lr=0.1))


@fault("L015", says="2 of 6 parameters with a gradient don't move")
def one_group_without_learning_rate() -> Case:
    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        named = dict(model.named_parameters())
        last = [named.pop("last.weight"), named.pop("last.bias")]
        rest = list(named.values())
        groups: list[dict[str, Any]] = [{"params": last, "lr": 0.0}, {"params": rest}]
        return torch.optim.Adam(groups)

    return looped(optimizer=optimizer)


@fault("L016", says="2 parameters that are declared frozen move (first.weight, first.bias)")
def frozen_part_drifts() -> Case:
    return replace(PLAIN, declared=Declared(frozen=["first.*"]))


@fault("L016", says="2 parameters are frozen and not declared so (first.weight, first.bias)")
def frozen_by_mistake() -> Case:
    def model() -> nn.Module:
        classifier = Classifier()
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


@fault("L021", says="extra[0].weight")
def layers_in_a_plain_list() -> Case:
    return built(ListOfLayers)


@fault("L021", says="scale")
def a_tensor_that_is_no_parameter() -> Case:
    class Scaled(Classifier):
        def __init__(self) -> None:
            super().__init__()
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
        logits: Tensor = self.decoder(self.middle(self.encoder(x)))
        return logits


TIES = Declared(tied=[["encoder.weight", "middle.weight"]])


@fault("L022", says="declared tied, but not in a fresh model: encoder.weight = middle.weight")
def tie_was_never_made() -> Case:
    return built(lambda: Tied(tied=False), declared=TIES)


@fault("L022", says="no longer one tensor behind the training")
def tie_is_cut_while_training() -> Case:
    def cut(model: nn.Module) -> None:
        middle = model.get_submodule("middle")
        middle.weight = nn.Parameter(middle.get_parameter("weight").detach().clone())

    return replace(looped(after_step=cut), model=Tied)


@fault("L022", says="one tensor without being declared tied")
def tie_that_nobody_declared() -> Case:
    return built(Tied, declared=Declared(tied=[]))


# ---- modules


@fault("L023", says="1 modules with trainable parameters are never called (unused)")
def layer_is_never_called() -> Case:
    class Forgetful(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Linear(WIDTH, WIDTH)

    return built(Forgetful)


@fault("L024", says="9 of 12 training calls are in eval mode")
def stays_in_eval_mode() -> Case:
    return looped(train=lambda model, epoch: model.train() if epoch == 1 else None)


@fault("L024", says="4 of 4 validation calls are in train mode")
def validates_in_train_mode() -> Case:
    return looped(evaluate=lambda model: None)


@fault("L025", says="batch norm gets fewer than 4 values a channel (norm: 2)")
def two_values_a_channel() -> Case:
    class Pairs(Classifier):
        def features(self, x: Tensor) -> Tensor:
            return torch.cat([super(Pairs, self).features(pair) for pair in torch.split(x, 2)])

    return built(Pairs)


@fault("L025", says="the running statistics of norm (momentum 0) don't move")
def statistics_do_not_move() -> Case:
    class Still(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(WIDTH, momentum=0.0)

    return built(Still)


@fault("L026", says="two predictions of one batch in eval mode differ")
def dropout_at_inference() -> Case:
    class Functional(Classifier):
        def features(self, x: Tensor) -> Tensor:
            return nn.functional.dropout(super().features(x), 0.3)

    return built(Functional)


@fault("L027", says="with the samples beside it")
def centred_by_the_batch() -> Case:
    class Centred(Classifier):
        def features(self, x: Tensor) -> Tensor:
            return super().features(x - x.mean(0))

    return built(Centred)


@fault("L028", says="activations are dead or saturated (activation: 100%")
def dead_from_the_start() -> Case:
    def model() -> nn.Module:
        classifier = Classifier()
        nn.init.constant_(classifier.norm.bias, -50.0)
        return classifier

    return built(model)


@fault("L028", says="units that start alike and stay alike")
def constant_initialisation() -> Case:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(FEATURES, WIDTH), nn.Linear(WIDTH, CLASSES)
            for layer in (self.first, self.last):
                nn.init.constant_(layer.weight, 0.1)
                nn.init.zeros_(layer.bias)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.last(self.first(x).tanh())
            return logits

    return built(Plain)


@fault("L028", says="all weight matrices are zero")
def all_zero() -> Case:
    def model() -> nn.Module:
        classifier = Classifier()
        for parameter in classifier.parameters():
            nn.init.zeros_(parameter)
        return classifier

    return built(model)


@fault("O001", says="it learns, but not all of it")
def too_small_to_memorise() -> Case:
    class Narrow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(FEATURES, 1), nn.Linear(1, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.last(self.first(x))
            return logits

    return built(Narrow)


@fault("O001", "L015", says="it does not learn")
def memorises_nothing() -> Case:
    return looped(optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.0))


def cut_by(cut: Callable[[Tensor], Tensor]) -> Case:
    class Cut(Classifier):
        def features(self, x: Tensor) -> Tensor:
            return cut(super().features(x))

    return built(Cut)


@fault("L014", says="cut by .data\n  Place: tests/faults/mechanics.py:")
def features_by_data() -> Case:
    return cut_by(lambda hidden: hidden.data)


@fault("L014", says="cut by tolist()\n  Place: tests/faults/mechanics.py:")
def features_through_lists() -> Case:
    return cut_by(lambda hidden: torch.tensor(hidden.tolist()))


@fault("L014", says="under no_grad\n  Place: tests/faults/mechanics.py:")
def features_under_no_grad() -> Case:
    class Frozen(Classifier):
        def features(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                return super().features(x)

    return built(Frozen)


@fault("L014", says="cut by argmax()\n  Place: tests/faults/mechanics.py:")
def features_by_choice() -> Case:
    return cut_by(lambda hidden: nn.functional.one_hot(hidden.argmax(1), WIDTH).float())


@fault("L009", says="the loop went on behind 12 exceptions (RuntimeError in a call of Picky)")
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
                except Exception:  # noqa: BLE001, S112  # the fault
                    continue
        return [Epoch(train=1.0)] * plan.epochs

    return built(Picky, fit=fit)


@fault("L001", says="the updates climb the gradient")
def climbs_the_gradient() -> Case:
    return looped(
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.05, maximize=True)
    )


# ---- fresh samples


def loader(split: str, seed: int) -> list[Batch]:
    return [batch(split, seed * 100 + k, 32) for k in range(8)]


def metric(model: nn.Module, batch: Batch) -> float:
    return float(loss(model, batch, Progress(epoch=1, epochs=1)))


def of_a_constant(batch: Batch) -> float:
    shares = torch.bincount(batch[1], minlength=CLASSES) / len(batch[1])
    return float(-(shares * shares.clamp(min=1e-6).log()).sum())


JUDGED = replace(PLAIN, loader=loader, metric=metric, baselines={"constant": of_a_constant})


@fault("O004", says="the metric on fresh samples went from")
def metric_of_another_model() -> Case:
    stale = Classifier().eval()
    return replace(JUDGED, metric=lambda model, batch: metric(stale, batch))


@fault("O004", says="the metric is")
def no_better_than_what_is_free() -> Case:
    return replace(JUDGED, baselines={"the label itself": lambda batch: 0.0})


@fault("L016", says="no parameter fits Declared.frozen backbone.*")
def frozen_pattern_that_fits_nothing() -> Case:
    return replace(PLAIN, declared=Declared(frozen=["backbone.*"]))


def rebuilding_fit(model: nn.Module, plan: Plan) -> list[Epoch]:
    history = []
    for _ in range(plan.epochs):
        history += Loop()(model, replace(plan, epochs=1))
    return history


@fault("L013", says="the optimiser was built 4 times in 12 steps")
def optimiser_anew_in_every_epoch() -> Case:
    return replace(PLAIN, fit=rebuilding_fit)


@fault("L012", "L018", says="12 of 12 steps find no gradient, though backward() left some")
def clears_between_backward_and_step() -> Case:
    return looped(before_step=lambda model: model.zero_grad())


@fault("L027", says="with the samples beside it")
def batch_taken_for_time() -> Case:
    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells, self.last = nn.GRU(3, WIDTH), nn.Linear(WIDTH, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.cells(x.reshape(len(x), 4, 3))[0]
            logits: Tensor = self.last(hidden[:, -1])
            return logits

    return built(Sequence)


def script(**changes: Any) -> Case:
    """The same loop as a script, which nobody gives a plan."""

    def main() -> None:
        batches = [batch("train", k, 16) for k in range(6)]
        Loop(**changes)(Classifier(), Plan(epochs=20, train=batches))

    return Case(name="script", main=main)


@fault("L024", says="all 12 calls with a gradient are in eval mode")
def script_trains_in_eval_mode() -> Case:
    return script(train=lambda model, epoch: model.eval())


@fault("L009", says="12 optimiser steps for 72 backward passes")
def script_steps_once_an_epoch() -> Case:
    return script(every=6, clear=lambda o, n: o.zero_grad() if n % 6 == 1 else None)


@fault("G007", says="the prediction is [7, 1] and the truth [7] for 7 samples (limit 0 dimensions")
def target_broadcasts() -> Case:
    return replace(
        PLAIN,
        model=lambda: nn.Linear(FEATURES, 1),
        loss=lambda model, batch, progress: (model(batch[0]) - batch[0][:, 0]).square().mean(),
        truth=lambda batch: batch[0][:, 0],
        fit=None,
        optimizer=adam,
    )
