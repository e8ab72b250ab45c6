# mypy: disable-error-code=import-not-found
import torch
import training

import ris_diag


def my_case() -> ris_diag.Case:
    return ris_diag.Case(
        name="hugging-face-style",
        model=training.LanguageModel,
        batch=lambda split, seed, size: training.make_batch(size, seed),
        loss=lambda model, batch, progress: model(**batch).loss,
        optimizer=lambda model: torch.optim.AdamW(model.parameters(), lr=0.01),
        step=lambda t, batch, progress: training.training_step(t.model, t.optimizer, batch),
        predict=lambda model, batch: model(batch["input_ids"]).logits,
    )
