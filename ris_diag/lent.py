"""A model and an optimiser that exist already: lent to the checks, given back as they were."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from inspect import unwrap
from typing import Any

import torch
from torch import Tensor, nn

from ris_diag.case import Batch, Case
from ris_diag.errors import CaseError
from ris_diag.graph import map_leaves
from ris_diag.places import calling_place, placed
from ris_diag.plan import Progress


class Lent:
    """The parts of `Case.from_xy`; nothing of the user's is copied but the numbers."""

    def __init__(
        self,
        model: nn.Module,
        loader: Iterable[Any],
        loss_fn: Callable[[Any, Any], Tensor],
        optimizer: torch.optim.Optimizer,
        validation: Iterable[Any] | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise CaseError(f"from_xy: model is {type(model).__name__}, not a torch.nn.Module")
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise CaseError(f"from_xy: optimizer is {type(optimizer).__name__}")
        self.model, self.loss_fn, self.optimizer = model, loss_fn, optimizer
        self.loader, self.validation = loader, validation
        self.place = calling_place()
        self._state = {name: t.detach().clone() for name, t in model.state_dict().items()}
        self._device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self._modes = {module: module.training for module in model.modules()}
        self._gradients = {p: (p.requires_grad, p.grad) for p in model.parameters()}
        self._optimizer_state = _copied(optimizer.state_dict())

    @property
    def given(self) -> str:
        """Where the parts were given."""
        return f"Case.from_xy at {self.place}" if self.place else "Case.from_xy"

    def parts(self) -> dict[str, Callable[..., Any]]:
        """The parts of the case; reports name what the user gave, and where he gave it."""

        def loss(model: nn.Module, batch: Batch, progress: Progress) -> Tensor:
            return self.loss(model, batch, progress)

        loss.__wrapped__ = self.loss_fn  # type: ignore[attr-defined]  # read by inspect.unwrap
        given = self.given
        return {
            "model": placed(self.fresh_model, f"{type(self.model).__name__}, model of {given}"),
            "optimizer": placed(self.fresh_optimizer, f"optimizer of {given}"),
            "batch": placed(self.batch, f"loader of {given}"),
            "loss": loss,
            "predict": placed(self.predict, f"model of {given}"),
            "truth": placed(self.truth, f"y of the loader of {given}"),
            "restore": self.restore,
        }

    def restore(self) -> None:
        """Device, numbers, gradients, modes and flags as they were when the case was made."""
        if any(p.device != self._device for p in self._gradients):
            self.model.to(self._device)
        with torch.no_grad():
            for name, tensor in self.model.state_dict().items():
                tensor.copy_(self._state[name])
        for module, training in self._modes.items():
            module.training = training
        for parameter, (requires_grad, gradient) in self._gradients.items():
            parameter.requires_grad_(requires_grad)
            parameter.grad = gradient
        self.optimizer.load_state_dict(_copied(self._optimizer_state))

    def fresh_model(self) -> nn.Module:
        """The model in the state it had when the case was made, without gradients."""
        self.restore()
        for parameter in self._gradients:
            parameter.grad = None
        return self.model

    def fresh_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimiser; its state is where the parameters are."""
        self.optimizer.load_state_dict(_copied(self._optimizer_state))
        return self.optimizer

    def batch(self, split: str, seed: int, size: int) -> Batch:
        """`size` samples (x, y) of a split's loader, from its beginning, or all that it has."""
        xs, ys, count = [], [], 0
        with self.serving(split, seed) as loader:
            for x, y in _pairs(loader):
                xs.append(x)
                ys.append(y)
                count += len(x)
                if count >= size:
                    break
        if not xs:
            raise CaseError("from_xy: the loader is empty")
        return torch.cat(xs)[:size], torch.cat(ys)[:size]

    @contextmanager
    def serving(self, split: str, seed: int) -> Iterator[Iterable[Any]]:
        """The loader of a split, its random choices from a seed; its state is put back."""
        loader = self.loader if split == "train" or self.validation is None else self.validation
        with torch.random.fork_rng(devices=()), _own_generators_kept(loader, seed):
            torch.default_generator.manual_seed(seed)
            yield loader

    def loss(self, model: nn.Module, batch: Batch, progress: Progress) -> Tensor:
        """loss_fn(model(x), y)."""
        x, y = batch
        return self.loss_fn(model(x), y)

    def truth(self, batch: Batch) -> Tensor:
        """Y."""
        y: Tensor = batch[1]
        return y

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """model(x)."""
        prediction: Tensor = model(batch[0])
        return prediction


def lent_to(case: Case) -> Lent | None:
    """Where a script's own loaders stand behind a case: what holds them."""
    owner = None if case.batch is None else getattr(unwrap(case.batch), "__self__", None)
    return owner if isinstance(owner, Lent) else None


@contextmanager
def _own_generators_kept(loader: Iterable[Any], seed: int) -> Iterator[None]:
    """Seed the generators that the loader holds; put their states back."""
    holders = (loader, getattr(loader, "sampler", None))
    held = [getattr(holder, "generator", None) for holder in holders]
    states = [(g, g.get_state()) for g in held if isinstance(g, torch.Generator)]
    try:
        for generator, _ in states:
            generator.manual_seed(seed)
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)


def _pairs(loader: Iterable[Any]) -> Iterator[tuple[Tensor, Tensor]]:
    for pair in loader:
        if not (isinstance(pair, list | tuple) and len(pair) == 2):
            raise CaseError(
                f"from_xy: the loader gives {type(pair).__name__}, not pairs (x, y); describe "
                "other batches with ris_diag.Case(batch=..., loss=...)"
            )
        yield pair[0], pair[1]


def _copied(state: Any) -> Any:
    """A state dict with its tensors copied, whatever it nests."""
    return map_leaves(state, lambda t: t.detach().clone() if isinstance(t, Tensor) else t)
