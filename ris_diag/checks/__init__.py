"""The checks. Importing this package registers all of them."""

from ris_diag.checks import guards, litmus, loop, loss_path, overfit

__all__ = ["guards", "litmus", "loop", "loss_path", "overfit"]
