"""The loss of a perfect output: who is accused, who is not, and what is left behind."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ris_diag
from ris_diag import Case, Declared, Losses
from ris_diag.answers import as_output
from ris_diag.checks.terms import _may_lack_rank
from ris_diag.oracle import Losing, Unreachable, follow
from ris_diag.runner import Runner
from tests.faults.oracle_faults import (
    Outer,
    channels,
    energy,
    of_classes,
    of_matrices,
    of_numbers,
    smoothed,
    two_terms,
)
from tests.faults.registry import FAULTS, Fault, planted_lines
from tests.faults.zoo import ZOO
from tests.faults.zoo_parts import adam, mlp, regression, supervised, tokens

PLANTED = [fault for fault in FAULTS if fault.plant.__module__ == "tests.faults.oracle_faults"]
CHECKS = "G008,G009,G010"


def complaints(case: Case, select: str = CHECKS, seed: int = 0) -> list[str]:
    report = ris_diag.run(case, select=select, seed=seed)
    return [r.message() for r in report.results if r.status in ("fail", "error")]


@pytest.mark.parametrize("fault", PLANTED, ids=lambda fault: fault.name)
def test_a_fault_is_shown_in_its_line_and_named(fault: Fault) -> None:
    report = ris_diag.run(fault.plant(), select=fault.fires)
    assert report[fault.fires[0]].findings[0]["place"] in planted_lines(fault)
    assert report.diagnosis.named[0].cause.slug in fault.cause


@pytest.mark.parametrize("fault", PLANTED, ids=lambda fault: fault.name)
def test_without_the_fault_it_is_silent(fault: Fault) -> None:
    if fault.healthy is not None:
        assert complaints(fault.healthy()) == []


def counts(split: str, seed: int, size: int) -> tuple[Tensor, Tensor]:
    x, y = regression(split, seed, size)
    return x, (3 * y.abs()).round()


def amounts(split: str, seed: int, size: int) -> tuple[Tensor, Tensor]:
    x, y = regression(split, seed, size)
    return x, 100 + 30 * y


def yes_and_no(split: str, seed: int, size: int) -> tuple[Tensor, Tensor]:
    x, y = regression(split, seed, size)
    return x, (y > 0).float()


def positive(split: str, seed: int, size: int) -> tuple[Tensor, Tensor]:
    x, y = regression(split, seed, size)
    return x, 1 + 50 * y.abs()


def shares(split: str, seed: int, size: int) -> tuple[Tensor, Tensor]:
    x, _ = regression(split, seed, size)
    return x, (x @ torch.ones(8, 4).cumsum(1)).softmax(1)


def correlation(p: Tensor, y: Tensor) -> Tensor:
    return 1 - F.cosine_similarity((p - p.mean()).flatten(), (y - y.mean()).flatten(), 0)


def dice(p: Tensor, y: Tensor) -> Tensor:
    p = p.sigmoid()
    return 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)


def in_data(
    data: Any, criterion: Callable[[Any, Any], Any], outputs: int = 1, **parts: Any
) -> Case:
    case = supervised("other data", lambda: mlp(8, 32, outputs), data, criterion)
    return replace(case, **{"optimizer": adam(1e-2), "truth": lambda batch: batch[1], **parts})


def shifted_inside() -> Case:
    """A language model whose labels are its input; the loss shifts them."""
    return supervised(
        "shifted",
        lambda: nn.Sequential(nn.Embedding(16, 16), nn.Linear(16, 16)),
        lambda split, seed, size: (tokens(split, seed, size),) * 2,
        lambda p, y: F.cross_entropy(p[:, :-1].flatten(0, 1), y[:, 1:].flatten()),
        optimizer=adam(1e-2),
        truth=lambda batch: batch[1],
    )


def penalised(p: Tensor, y: Tensor) -> Tensor:
    return F.mse_loss(p, y) + 0.3 * p.square().mean()


def lent(criterion: Callable[[Any, Any], Any]) -> Case:
    x, y = amounts("train", 0, 64)
    pairs = torch.utils.data.TensorDataset(x, y)
    model = mlp(8, 32, 1)
    loader = torch.utils.data.DataLoader(pairs, batch_size=16, shuffle=True)
    return Case.from_xy(model, loader, criterion, torch.optim.Adam(model.parameters()))


HEALTHY: dict[str, Callable[[], Case]] = {
    "smoothed labels": lambda: of_classes(lambda p, y: F.cross_entropy(p, y, label_smoothing=0.1)),
    "smoothed, with its floor": smoothed,
    "probabilities": lambda: of_classes(
        lambda p, y: F.nll_loss((p + 1e-9).log(), y),
        model=lambda: nn.Sequential(mlp(8, 32, 4), nn.Softmax(1)),
    ),
    "log-probabilities": lambda: of_classes(
        F.nll_loss, model=lambda: nn.Sequential(mlp(8, 32, 4), nn.LogSoftmax(1))
    ),
    "brier": lambda: of_classes(lambda p, y: F.mse_loss(p.softmax(1), F.one_hot(y, 4).float())),
    "hinge": lambda: of_classes(F.multi_margin_loss),
    "weights decay in the loss": lambda: of_numbers(penalised),
    "counts": lambda: in_data(counts, F.poisson_nll_loss),
    "logarithm as target": lambda: in_data(positive, lambda p, y: F.mse_loss(p, y.log())),
    "standardised inside": lambda: in_data(
        amounts,
        lambda p, y: F.mse_loss(p, (y - 100) / 30),
        predict=lambda model, batch: 30 * model(batch[0]) + 100,
    ),
    "standardised, lent": lambda: lent(lambda p, y: F.mse_loss(p, (y - 100) / 30)),
    "yes and no": lambda: in_data(yes_and_no, F.binary_cross_entropy_with_logits),
    "dice": lambda: in_data(yes_and_no, dice),
    "divergence": lambda: in_data(
        shares, lambda p, y: F.kl_div(p.log_softmax(1), y, reduction="batchmean"), 4
    ),
    "correlation": lambda: of_numbers(correlation),
    "ranking": lambda: of_numbers(
        lambda p, y: F.margin_ranking_loss(p, p.roll(1, 0), (y - y.roll(1, 0)).sign(), margin=0.1)
    ),
    "shift inside": shifted_inside,
    "unit length": lambda: of_classes(
        lambda p, y: F.cross_entropy(5 * p / p.norm(dim=1, keepdim=True), y)
    ),
    "truth of another shape": lambda: of_numbers(
        lambda p, y: F.mse_loss(p[:, 0], y[:, 0]), truth=lambda batch: batch[1][:, 0]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_losses_are_not_accused(name: str) -> None:
    assert [c for seed in range(5) for c in complaints(HEALTHY[name](), seed=seed)] == []


TRUTHS: dict[str, Callable[[Any], Tensor]] = {
    "variational_autoencoder": lambda batch: batch,
    "autoencoder": lambda batch: batch,
    "physics_informed": lambda batch: torch.sin(torch.pi * batch),
    "target_network": lambda batch: batch["reward"],
    "model_returns_its_loss": lambda batch: batch["labels"],
    "transformer_tied": lambda batch: batch,
    "siamese": lambda batch: batch.same,
    "denoising_diffusion": lambda batch: batch,
    "nodes_of_one_graph": lambda batch: batch["label"],
    "sensors_on_a_fixed_graph": lambda batch: batch["y"],
}


@pytest.mark.parametrize("name", ZOO)
def test_the_zoo_with_truth_is_silent(name: str) -> None:
    case = ZOO[name]()
    if case.loss is None or case.batch is None or name == "logged_bandit":
        pytest.skip("no loss, or no truth: what was done is not what should have been done")
    truth = TRUTHS.get(name)
    if truth is None and isinstance(case.batch("train", 0, 2), tuple):
        truth = lambda batch: batch[1]  # noqa: E731
    assert complaints(replace(case, truth=truth)) == []


def test_nothing_stays_in_the_model() -> None:
    kept: list[nn.Module] = []

    def model() -> nn.Module:
        kept.append(mlp(8, 32, 1))
        return kept[-1]

    complaints(of_numbers(model=model))
    assert kept
    for made in kept:
        assert "forward" not in made.__dict__
        assert not made._forward_hooks
        assert not made._forward_pre_hooks
        assert all(p.grad is None for p in made.parameters())


def test_an_output_is_put_in_place_and_taken_away_after_an_error() -> None:
    subject = Runner(of_numbers()).subject
    model, batch = subject.model(), subject.batch("train", 7)

    def run() -> Tensor:
        output: Tensor = model(batch[0])
        if bool((output == 7).all()):
            raise ValueError("no")
        return output.sum()

    path = follow(subject, model, run)
    assert path.given([torch.full((7, 1), 2.0)]) == 14
    with pytest.raises(Unreachable, match="ValueError: no"):
        path.given([torch.full((7, 1), 7.0)])
    assert "forward" not in model.__dict__
    assert torch.equal(path.outputs[0], model(batch[0]))


def test_an_oracle_is_judged_strictly_and_its_floor_is_declared() -> None:
    case = replace(smoothed(), declared=None)
    (message,) = complaints(case, "G008")
    assert "with Case.oracle in place of the model's output" in message
    assert complaints(replace(case, declared=Declared(floor=0.3488)), "G008") == []


def test_an_oracle_of_another_shape_is_refused() -> None:
    case = replace(of_numbers(), oracle=lambda batch: batch[1][:, 0])
    (message,) = complaints(case, "G008")
    assert "gave tensors [[7]]: expected [[7, 1]], as the model does" in message


def test_what_cannot_be_judged_says_why() -> None:
    for name, why in (
        ("model_returns_its_loss", "holds no numbers that could be replaced"),
        ("siamese", "neither Case.oracle nor Case.truth says"),
    ):
        case = replace(ZOO[name](), truth=TRUTHS[name] if "returns" in name else None)
        assert why in ris_diag.run(case, select="G008")["G008"].lines[0]


def test_the_loss_beside_the_output_is_noticed() -> None:
    case = ZOO["regularised_by_hand"]()
    subject = Runner(case).subject
    model, batch = subject.model(), subject.batch("train", 7)
    assert Losing.of(subject, model, batch, lambda output: True).beside(torch.zeros(7, 4))
    plain = Runner(of_classes()).subject
    losing = Losing.of(plain, plain.model(), batch, lambda output: True)
    assert not losing.beside(torch.zeros(7, 4))


def test_terms_that_are_switched_off_or_weighted_by_learnt_numbers_are_no_fault() -> None:
    class Weighted(Outer):
        def __init__(self) -> None:
            super().__init__()
            self.logarithms = nn.Parameter(torch.zeros(2))

    def loss(model: Any, batch: Any, progress: ris_diag.Progress) -> Losses:
        R = model(batch[0])
        terms = {"main": energy(R, batch[1]), "off": torch.zeros(())}
        scale = model.logarithms
        return Losses(total=terms["main"] * (-scale[0]).exp() + scale.sum(), terms=terms)

    assert complaints(two_terms(loss=loss, model=Weighted), "G009") == []


def test_a_hidden_penalty_of_the_weights_is_not_called_a_constant() -> None:
    def loss(model: nn.Module, batch: Any, progress: ris_diag.Progress) -> Losses:
        terms = {"main": energy(model(batch[0]), batch[1])}
        penalty = sum((p.abs().sum() for p in model.parameters()), torch.zeros(()))
        return Losses(total=terms["main"] + penalty, terms=terms)

    assert complaints(two_terms(loss=loss), "G009") == []


def test_rank_one_is_tried_where_the_network_gives_it_alone() -> None:
    def logdet(R: Tensor, R_true: Tensor) -> Tensor:
        return energy(R, R_true) + 1e-3 * torch.logdet(R).real.mean()

    class Loaded(Outer):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + torch.eye(4)

    def full(split: str, seed: int, size: int) -> tuple[Tensor, Tensor]:
        x, R = channels(split, seed, size)
        return x, R + torch.eye(4)

    assert complaints(of_matrices(logdet, model=Loaded, batch=full), "G010") == []
    x, R = full("train", 0, 7)
    assert _may_lack_rank(Outer()(x))
    assert not _may_lack_rank(R)


def test_complex_numbers_are_no_scores_of_classes() -> None:
    output = torch.randn(6, 4, dtype=torch.complex64)
    assert as_output(torch.tensor([0, 1, 2, 3, 0, 1]), output) == []
