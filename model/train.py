"""The training loop."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from model.blend import BlendSchedule
from model.loss import DualLoss, DualLossValue, LossWeights
from model.nmse import nmse
from model.scene import Scenes, check_scenes
from model.validate import require_count, require_number

log = logging.getLogger(__name__)

StepCallback = Callable[[int, DualLossValue], None]


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """Settings of a run.

    Attributes:
        clip_norm: largest gradient norm.
        curriculum: while beta warms up, train on the easier half of every batch, the scenes whose
            sample covariance is nearest to the truth.
        seed: of the jitter of beta.
    """

    epochs: int = 30
    learning_rate: float = 6e-3
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    weights: LossWeights = field(default_factory=LossWeights)
    schedule: BlendSchedule = field(default_factory=BlendSchedule)
    curriculum: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        require_number("learning_rate", self.learning_rate, 0.0, 10.0, open_low=True)
        require_number("weight_decay", self.weight_decay, 0.0, 10.0)
        require_number("clip_norm", self.clip_norm, 0.0, 1e6, open_low=True)
        require_count("seed", self.seed, 0, 2**63 - 1)
        self.schedule.warmup_epochs(self.epochs)  # refuses epochs below 1 or below the warm-up


@dataclass(frozen=True, kw_only=True)
class EpochLosses:
    """Mean losses of one epoch; `validation` is None where no validation scenes were given."""

    train: float
    validation: float | None


def make_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """AdamW over all parameters."""
    return torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )


def easier_half(scenes: Scenes) -> Scenes:
    """The half of the batch (rounded up) with the smallest NMSE(R_samp)."""
    difficulty = nmse(scenes.R_samp, scenes.R_true)
    return scenes.take(difficulty.argsort()[: (len(difficulty) + 1) // 2])


def fit(
    model: nn.Module,
    train: Iterable[Scenes],
    validation: Iterable[Scenes] = (),
    *,
    settings: TrainSettings,
    on_step: StepCallback | None = None,
    resume: Callable[..., int] | None = None,
) -> list[EpochLosses]:
    """Train `model` in place: one optimiser step a batch, `settings.epochs` times over `train`.

    Args:
        train, validation: batches on the model's device, iterated anew in every epoch.
        on_step: called with (epoch, loss) in front of every backward pass.
        resume: called with what the loop keeps beside the model; brings it, and the model, to
            where an interrupted run stood, and gives the epoch to go on with.

    Returns:
        the losses of every epoch that was trained.

    Raises:
        ValueError: a scene is not finite or not a covariance, or an epoch has no batch.
        FloatingPointError: the mean loss of an epoch is not finite.
    """
    optimizer = make_optimizer(model, settings)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs)
    criterion = DualLoss(settings.weights)
    jitter = torch.Generator().manual_seed(settings.seed)
    schedule, weights = settings.schedule, settings.weights
    warmup = schedule.warmup_epochs(settings.epochs)
    log.info("Loss weights: lam_cov=%s, lam_cov_pred=%s", weights.lam_cov, weights.lam_cov_pred)
    log.info(
        "[Beta Warmup] Annealing beta from %.2f -> %.2f over %d epochs",
        schedule.beta_start,
        schedule.beta_final,
        warmup,
    )
    first = 1 if resume is None else resume(optimizer, scheduler, jitter)
    history = []
    for epoch in range(first, settings.epochs + 1):
        model.train()
        criterion.train()
        losses = []
        for number, batch in enumerate(train, start=1):
            if epoch == first:
                check_scenes(batch)
            scenes = easier_half(batch) if settings.curriculum and epoch < warmup else batch
            beta = schedule.beta(epoch, settings.epochs, jitter)
            value: DualLossValue = criterion(model(scenes.X), scenes.R_samp, scenes.R_true, beta)
            if on_step is not None:
                on_step(epoch, value)
            optimizer.zero_grad()
            value.total.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
            optimizer.step()
            losses.append(value.total.detach())
            if number == 1:
                log.info("epoch %d: beta=%.3f on the first batch", epoch, beta)
            if epoch == 1:
                _log_first_epoch(number, value, scenes, norm)
        if not losses:
            raise ValueError(
                f"epoch {epoch}: no training batch; give an iterable that starts anew every epoch"
            )
        scheduler.step()
        train_loss = float(torch.stack(losses).mean())
        if not torch.isfinite(torch.tensor(train_loss)):
            raise FloatingPointError(f"epoch {epoch}: the mean training loss is {train_loss}")
        beta = schedule.beta(epoch, settings.epochs)
        epoch_losses = EpochLosses(
            train=train_loss, validation=validation_loss(model, criterion, validation, beta)
        )
        log.info("%s", epoch_line(epoch, settings, epoch_losses))
        history.append(epoch_losses)
    return history


@torch.no_grad()
def validation_loss(
    model: nn.Module, criterion: DualLoss, batches: Iterable[Scenes], beta: float
) -> float | None:
    """Mean loss over the scenes of all batches in eval mode; None without batches."""
    model.eval()
    criterion.eval()
    total, count = 0.0, 0
    for scenes in batches:
        value = criterion(model(scenes.X), scenes.R_samp, scenes.R_true, beta)
        total += float(value.total) * len(scenes.X)
        count += len(scenes.X)
    return total / count if count else None


def epoch_line(epoch: int, settings: TrainSettings, losses: EpochLosses) -> str:
    """The line of one epoch: `Epoch 001/030: train 0.856  val 0.823  (lam_cov=1.0, ...)`."""
    val = "-" if losses.validation is None else f"{losses.validation:.3f}"
    return (
        f"Epoch {epoch:03d}/{settings.epochs:03d}: train {losses.train:.3f}  val {val}  "
        f"(lam_cov={settings.weights.lam_cov}, lam_cov_pred={settings.weights.lam_cov_pred})"
    )


def _log_first_epoch(number: int, value: DualLossValue, scenes: Scenes, norm: Tensor) -> None:
    if number == 1:
        log.info(
            "loss terms: NMSE(R_blend)=%.6f, NMSE(R_pred)=%.6f, total=%.6f",
            *(float(term.detach()) for term in (value.cov, value.cov_pred, value.total)),
        )
        log.info(
            "R_blend.requires_grad=%s, ||R_hat - R_true||_F=%.4f (mean over the batch)",
            value.R_blend.requires_grad,
            (value.R_blend - scenes.R_true).detach().flatten(1).norm(dim=1).mean(),
        )
    log.info("epoch 1, batch %d: grad_norm=%.4f before clipping", number, norm)
