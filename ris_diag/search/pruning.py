"""Which trials are ended early."""

import optuna

# A trial is judged at a quarter of its epochs for the first time: at the first epoch, where Optuna
# begins, the order of trials says little about their end (docs/search.md has the numbers).
FIRST = 4
KEPT = 4  # one of so many goes on


def pruner_of(name: str, epochs: int) -> optuna.pruners.BasePruner:
    """A pruner by name, for metrics that are reported at the epochs 1 to `epochs`."""
    first = max(1, epochs // FIRST)
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(
            min_resource=first, max_resource=epochs, reduction_factor=KEPT
        )
    if name == "successive-halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=KEPT)
    return optuna.pruners.NopPruner()
