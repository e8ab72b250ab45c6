"""The causes. Importing this package registers all of them."""

from ris_diag.causes import (
    configuration,
    data,
    device,
    distributed,
    evaluation,
    loop,
    loss,
    model,
    numerics,
    optimiser,
)

__all__ = [
    "configuration",
    "data",
    "device",
    "distributed",
    "evaluation",
    "loop",
    "loss",
    "model",
    "numerics",
    "optimiser",
]
