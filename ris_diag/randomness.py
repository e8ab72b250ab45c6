"""Seeds that depend on what is checked, and a random state that is left as it was found."""

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derived_seed(seed: int, *names: str) -> int:
    """A seed in [0, 2^32) from the user's seed and names: the same in every process."""
    return zlib.crc32("\0".join([str(seed), *names]).encode())


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed python, numpy and torch (all devices); restore their states afterwards."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    # Where nobody uses CUDA it is neither initialised nor seeded.
    cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if cuda else ()
    with torch.random.fork_rng(devices):
        try:
            random.seed(seed)
            np.random.seed(seed)
            torch.default_generator.manual_seed(seed)
            if cuda:
                torch.cuda.manual_seed_all(seed)
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
