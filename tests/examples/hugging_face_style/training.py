"""Predicts the next token; the model takes the labels and gives an object with its loss."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

TOKENS, WIDTH, LENGTH = 20, 16, 12
Batch = dict[str, Tensor]


@dataclass
class Output:
    logits: Tensor
    loss: Tensor | None = None


class LanguageModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(TOKENS, WIDTH)
        self.mix = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.head = nn.Linear(WIDTH, TOKENS, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> Output:
        hidden, _ = self.mix(self.embed(input_ids))
        logits = self.head(hidden)
        if labels is None:
            return Output(logits=logits)
        shifted = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        return Output(logits=logits, loss=nn.functional.cross_entropy(*shifted))


def make_batch(samples: int, seed: int) -> Batch:
    start = torch.randint(TOKENS, (samples, 1), generator=torch.Generator().manual_seed(seed))
    tokens = (start + 3 * torch.arange(LENGTH)) % TOKENS
    return {"input_ids": tokens, "labels": tokens}


def training_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> Tensor:
    model.train()
    loss: Tensor = model(**batch).loss
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()
