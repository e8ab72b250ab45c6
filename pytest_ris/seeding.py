"""Seeds torch for pytest-randomly, where torch is in use already."""

import sys


def seed_torch(seed: int) -> None:
    """Seed torch's generators, unless nobody has imported torch."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(seed)
