# mypy: disable-error-code=import-not-found
import training

import ris_diag


def my_case() -> ris_diag.Case:
    return ris_diag.Case(
        name="dict-batches",
        model=training.MaskedMean,
        batch=lambda split, seed, size: training.make_batch(size, seed),
        loss=lambda model, batch, progress: training.training_loss(model, batch),
        optimizer=training.make_optimizer,
        predict=lambda model, batch: model(batch),
    )
