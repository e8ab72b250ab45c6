"""Shows the reference learner to the toolkit, as any user shows his own training."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

import ris_diag
from model.blend import BlendSchedule, blend
from model.estimators import ledoit_wolf, oas, unit_diagonal
from model.loader import SceneLoader
from model.loss import DualLoss, DualLossValue, LossWeights
from model.network import CovarianceNet, NetworkSettings
from model.nmse import nmse
from model.scene import Scenes, SceneSettings, located, simulate
from model.train import TrainSettings, fit


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The reference training: its scenes, its network, its settings.

    Attributes:
        train_scenes, batch_size: of a full training.
        width, channels: of the network.
    """

    scenes: SceneSettings = field(default_factory=SceneSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    train_scenes: int = 512
    batch_size: int = 32
    width: int = 64
    channels: int = 64

    def model(self) -> nn.Module:
        """A fresh network for these scenes."""
        return CovarianceNet(
            NetworkSettings(
                array=self.scenes.array,
                snapshots=self.scenes.snapshots,
                width=self.width,
                channels=self.channels,
                dtype=self.scenes.dtype,
            )
        )

    def batch(self, split: str, seed: int, size: int) -> Scenes:
        """`size` fixed scenes of a split."""
        return simulate(self.scenes, size, split=split, seed=seed)

    def scene(self, seed: int) -> ris_diag.Scene:
        """A test scene whose directions are known."""
        settings = self.scenes
        scenes, positions = located(settings, 8, split="test", seed=seed)
        (azimuth, elevation) = (
            (math.radians(low), math.radians(high))
            for low, high in (settings.azimuth_deg, settings.elevation_deg)
        )
        return ris_diag.Scene(
            batch=scenes,
            positions=positions[0, :, positions[0, 2] > 0],
            steering=settings.array.steering,
            azimuth=azimuth,
            elevation=elevation,
            distance=settings.distance,
        )

    def loader(self, split: str, seed: int) -> SceneLoader:
        """The batches of a full training."""
        scenes = self.batch(split, seed, self.train_scenes)
        return SceneLoader(scenes, batch_size=self.batch_size, seed=seed)

    def loss(self, model: nn.Module, batch: Scenes, progress: ris_diag.Progress) -> ris_diag.Losses:
        """The loss of one training step."""
        criterion = DualLoss(self.train.weights).train(model.training)
        beta = self.train.schedule.beta(progress.epoch, progress.epochs)
        return as_losses(criterion(model(batch.X), batch.R_samp, batch.R_true, beta))

    def fit(self, model: nn.Module, plan: ris_diag.Plan) -> list[ris_diag.Epoch]:
        """The training loop, on the toolkit's plan."""
        schedule = self.train.schedule
        if plan.beta is not None:
            schedule = BlendSchedule(beta_start=plan.beta, beta_final=plan.beta)
        history = fit(
            model,
            plan.train,
            plan.validation,
            settings=replace(self.train, epochs=plan.epochs, schedule=schedule),
            on_step=lambda epoch, value: plan.on_step(epoch, as_losses(value)),
            resume=plan.resume,
        )
        return [ris_diag.Epoch(train=e.train, validation=e.validation) for e in history]

    def fit_curriculum(self, model: nn.Module, plan: ris_diag.Plan) -> list[ris_diag.Epoch]:
        """The same loop with a curriculum."""
        return replace(self, train=replace(self.train, curriculum=True)).fit(model, plan)

    def case(self) -> ris_diag.Case:
        """All parts, by the toolkit's names."""
        schedule, weights = self.train.schedule, self.train.weights
        array = self.scenes.array
        return ris_diag.Case(
            name=f"ris-reference-{array.n_h}x{array.n_v}",
            model=self.model,
            batch=self.batch,
            loader=self.loader,
            loss=self.loss,
            fit=self.fit,
            paths={"plain": self.fit, "curriculum": self.fit_curriculum},
            predict=predict,
            truth=lambda batch: batch.R_true,
            metric=mean_nmse,
            distance=nmse,
            exempt={
                "D018": "scenes are simulated when they are asked for, none is stored",
                "D019": "scenes are simulated when they are asked for, none is stored",
                "M008": "diagonal and off-diagonal entries are weighted apart on purpose",
                "O004": "O002 and O003 judge the NMSE of fresh scenes, estimator by estimator",
            },
            covariance=ris_diag.Covariance(
                predict=predict,
                sample=lambda batch: batch.R_samp,
                truth=lambda batch: batch.R_true,
                blend=blend,
                infer=infer,
                beta=schedule.beta,
                criterion=make_criterion,
                loss=criterion_losses,
                baselines={
                    "OAS": lambda batch: oas(batch.X),
                    "Ledoit-Wolf": lambda batch: ledoit_wolf(batch.X),
                    "OAS, unit diagonal": lambda batch: unit_diagonal(oas(batch.X)),
                },
                snapshots=lambda batch: batch.X,
                scene=self.scene,
            ),
            declared=ris_diag.Declared(
                weights={"cov": weights.lam_cov, "cov_pred": weights.lam_cov_pred},
                trace=float(array.size),
                batch_size=self.batch_size,
                beta_start=schedule.beta_start,
                beta_final=schedule.beta_final,
                warmup_share=schedule.warmup_share,
                beta_jitter=schedule.jitter,
            ),
        )


def predict(model: nn.Module, batch: Scenes) -> Tensor:
    """R_pred: complex [B, N, N]."""
    R_pred: Tensor = model(batch.X)
    return R_pred


def mean_nmse(model: nn.Module, batch: Scenes) -> float:
    """Mean NMSE(R_pred) over a batch."""
    return nmse(predict(model, batch), batch.R_true).mean().item()


@torch.no_grad()
def infer(model: nn.Module, batch: Scenes, beta: float) -> Tensor:
    """What inference hands out: the blend, complex [B, N, N]."""
    return blend(predict(model, batch), batch.R_samp, beta)


def make_criterion(weights: Mapping[str, float]) -> DualLoss:
    """The loss module with weights by term."""
    return DualLoss(LossWeights(lam_cov=weights["cov"], lam_cov_pred=weights["cov_pred"]))


def criterion_losses(
    criterion: nn.Module, R_pred: Tensor, R_samp: Tensor, R_true: Tensor, beta: float
) -> ris_diag.Losses:
    """The loss module applied."""
    return as_losses(criterion(R_pred, R_samp, R_true, beta))


def as_losses(value: DualLossValue) -> ris_diag.Losses:
    """The model's loss in the toolkit's words."""
    return ris_diag.Losses(
        total=value.total,
        terms={"cov": value.cov, "cov_pred": value.cov_pred},
        prediction=value.R_pred,
        blended=value.R_blend,
    )


def reference(
    *,
    learning_rate: float = 6e-3,
    weight_decay: float = 1e-4,
    lam_cov_pred: float = 0.05,
    beta_final: float = 0.30,
    warmup_share: float = 0.2,
    width: int = 64,
    channels: int = 64,
    batch_size: int = 32,
    curriculum: bool = False,
) -> ris_diag.Case:
    """The reference learner at N = 144; a search varies the parameters."""
    train = TrainSettings(
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        weights=LossWeights(lam_cov_pred=lam_cov_pred),
        schedule=BlendSchedule(beta_final=beta_final, warmup_share=warmup_share),
        curriculum=curriculum,
    )
    return Reference(train=train, batch_size=batch_size, width=width, channels=channels).case()
