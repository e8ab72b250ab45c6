"""Tells two moons apart: a script as most are, started by `python train.py`."""
# mypy: disable-error-code=import-not-found

import argparse
import logging

import torch
from data import moons
from torch import nn

log = logging.getLogger(__name__)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--lr", type=float, default=0.05)
    options = parser.parse_args()

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr)
    loader = torch.utils.data.DataLoader(moons(128), batch_size=16, shuffle=True)
    for epoch in range(1, options.epochs + 1):
        total = 0.0
        for x, y in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item()
        log.info("epoch %d: %.4f", epoch, total / len(loader))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main()
