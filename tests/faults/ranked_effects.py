"""What a training on several processes does, observed on each rank without any check."""

from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from ris_diag import Case, Plan
from ris_diag.ranks import Ranks
from tests.faults.zoo_parts import epochs  # noqa: F401


def outcome_of_rank(factory: Callable[[], Case], ranks: Ranks) -> Any:
    return None
