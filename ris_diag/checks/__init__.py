"""The checks. Importing this package registers all of them."""

from ris_diag.checks import guards, law_gradients, laws, litmus, loop, loss_path, overfit

__all__ = ["guards", "law_gradients", "laws", "litmus", "loop", "loss_path", "overfit"]
