"""The checks. Importing this package registers all of them."""

from ris_diag.checks import (
    fresh,
    guards,
    inference,
    law_gradients,
    laws,
    litmus,
    loop,
    loss_path,
    memorise,
    modules,
    overfit,
    parameters,
    rates,
    steps,
)

__all__ = [
    "fresh",
    "guards",
    "inference",
    "law_gradients",
    "laws",
    "litmus",
    "loop",
    "loss_path",
    "memorise",
    "modules",
    "overfit",
    "parameters",
    "rates",
    "steps",
]
