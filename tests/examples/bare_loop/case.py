# mypy: disable-error-code=import-not-found
import training
from torch import Tensor, nn

import ris_diag


def loss(model: nn.Module, batch: tuple[Tensor, Tensor], progress: ris_diag.Progress) -> Tensor:
    x, y = batch
    return nn.functional.mse_loss(model(x), y)


def fit(model: nn.Module, plan: ris_diag.Plan) -> list[ris_diag.Epoch]:
    history = training.train(model, plan.train, plan.epochs, plan.on_step)
    return [ris_diag.Epoch(train=mean) for mean in history]


def my_case() -> ris_diag.Case:
    return ris_diag.Case(
        name="bare-loop",
        model=training.make_model,
        batch=lambda split, seed, size: training.make_batch(size, seed),
        loss=loss,
        fit=fit,
    )
