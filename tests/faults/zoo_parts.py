"""What the zoo's trainings share: synthetic data that can be learnt, and small networks."""

import zlib
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ris_diag import Case, Epoch, Plan, Progress

ZOO: dict[str, Callable[[], Case]] = {}

Data = Callable[[str, int, int], Any]


def healthy(factory: Callable[[], Case]) -> Callable[[], Case]:
    """Enters a training into the zoo, under its factory's name."""
    ZOO[factory.__name__] = factory
    return factory


def generator(split: str, seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(f"{split} {seed}".encode()))


def fixed(*shape: int) -> Tensor:
    """Numbers of the true relation: the same for every split."""
    return torch.randn(*shape, generator=generator("truth", sum(shape)))


# ---- data: (split, seed, size) -> a batch


def regression(split: str, seed: int, size: int) -> tuple[Tensor, Tensor]:
    """x [B, 8], y [B, 1]."""
    source = generator(split, seed)
    x = torch.randn(size, 8, generator=source)
    y = torch.sin(x @ fixed(8, 1)) + x @ fixed(8, 1) / 2
    return x, y + 0.05 * torch.randn(size, 1, generator=source)


def classes(split: str, seed: int, size: int) -> tuple[Tensor, Tensor]:
    """x [B, 8] around one of four centres, its number [B]."""
    source = generator(split, seed)
    label = torch.randint(4, (size,), generator=source)
    return fixed(4, 8)[label] + 0.5 * torch.randn(size, 8, generator=source), label


def images(split: str, seed: int, size: int) -> tuple[Tensor, Tensor]:
    """Stripes: x [B, 1, 8, 8], whether they lie, stand or lean [B]."""
    source = generator(split, seed)
    label = torch.randint(3, (size,), generator=source)
    row, column = torch.arange(8.0)[:, None], torch.arange(8.0)[None, :]
    stripes = torch.stack(
        [torch.cos(2 * a) + 0 * row * column for a in (row, column, row + column)]
    )
    return (stripes[label] + 0.3 * torch.randn(size, 8, 8, generator=source))[:, None], label


def sequences(split: str, seed: int, size: int) -> tuple[Tensor, Tensor]:
    """x [B, 12, 3], a discounted sum over its time [B, 1]."""
    x = torch.randn(size, 12, 3, generator=generator(split, seed))
    discount = 0.8 ** torch.arange(11, -1, -1)
    return x, (x @ fixed(3, 1) * discount[:, None]).sum(1)


def tokens(split: str, seed: int, size: int) -> Tensor:
    """Sequences [B, 12] of 16 symbols, each the follower of the one before."""
    follower = torch.randperm(16, generator=generator("truth", 0))
    column = torch.randint(16, (size,), generator=generator(split, seed))
    columns = [column]
    for _ in range(11):
        columns.append(follower[columns[-1]])
    return torch.stack(columns, 1)


def loader_of(data: Data, *, batches: int = 4, size: int = 16) -> Callable[[str, int], list[Any]]:
    return lambda split, seed: [data(split, 1000 * seed + k, size) for k in range(batches)]


# ---- networks


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, outputs),
    )


class LastState(nn.Module):
    """A recurrent network, read out at the end of the sequence."""

    def __init__(self, kind: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.recurrent = kind(3, 24, batch_first=True)
        self.head = nn.Linear(24, 1)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.recurrent(x)
        output: Tensor = self.head(states[:, -1])
        return output


class LanguageModel(nn.Module):
    """A transformer encoder with a causal mask over `tokens`; ties its embeddings on demand."""

    def __init__(self, *, tied: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(16, 32)
        self.position = nn.Parameter(0.02 * torch.randn(12, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 16, bias=False)
        nn.init.normal_(self.embedding.weight, std=0.1)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=x.device)
        hidden = self.embedding(x) + self.position[:length]
        logits: Tensor = self.head(self.encoder(hidden, mask=mask, is_causal=True))
        return logits


def conv_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(16 * 9, 3),
    )


# ---- trainings


def adam(rate: float) -> Any:
    """(model) -> Adam over all that is trainable."""
    return lambda model: torch.optim.Adam(
        [p for p in model.parameters() if p.requires_grad], lr=rate
    )


def supervised(
    name: str,
    model: Callable[[], nn.Module],
    data: Data,
    criterion: Callable[[Any, Any], Any],
    **parts: Any,
) -> Case:
    """The case of a network from x to y."""

    def loss(model: nn.Module, batch: Any, progress: Progress) -> Tensor:
        x, y = batch
        value: Tensor = criterion(model(x), y)
        return value

    return Case(
        **{
            "name": name,
            "model": model,
            "batch": data,
            "loss": loss,
            "loader": loader_of(data),
            "predict": lambda model, batch: model(batch[0]),
            **parts,
        }
    )


def validated(
    model: nn.Module, batches: Iterable[Any], criterion: Callable[[Any, Any], Any]
) -> float | None:
    """Mean loss in eval mode, None without batches."""
    model.eval()
    with torch.no_grad():
        values = [float(criterion(model(x), y)) for x, y in batches]
    return sum(values) / len(values) if values else None


def epochs(
    model: nn.Module,
    plan: Plan,
    step: Callable[[int, Any], float],
    behind: Callable[[float], None] = lambda mean: None,
) -> list[Epoch]:
    """Loop of the trainings in which only the step is of interest."""
    history = []
    for epoch in range(1, plan.epochs + 1):
        model.train()
        losses = [step(epoch, batch) for batch in plan.train]
        mean = sum(losses) / len(losses)
        behind(mean)
        history.append(Epoch(train=mean))
    return history
