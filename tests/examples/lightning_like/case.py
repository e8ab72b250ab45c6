# mypy: disable-error-code=import-not-found
import training
from torch.utils.data import default_collate

import ris_diag


def my_case() -> ris_diag.Case:
    return ris_diag.Case(
        name="lightning-like",
        model=training.Classifier,
        batch=lambda split, seed, size: default_collate(list(training.Points(size, seed))),
        loss=lambda model, batch, progress: model.training_step(batch, 0),  # type: ignore[operator]
        optimizer=lambda model: model.configure_optimizers(),  # type: ignore[operator]
    )
