# mypy: disable-error-code=import-not-found
import training
from torch import Tensor, nn

import ris_diag


def loss(model: nn.Module, batch: tuple[Tensor, ...], progress: ris_diag.Progress) -> Tensor:
    user, item, rating = batch
    return nn.functional.mse_loss(model(user, item), rating)


def my_case() -> ris_diag.Case:
    return ris_diag.Case(
        name="two-optimisers",
        model=training.Ratings,
        batch=lambda split, seed, size: training.make_batch(size, seed),
        loss=loss,
        optimizer=training.make_optimizers,
        step=lambda t, batch, progress: training.training_step(t.model, t.optimizer, batch),
    )
