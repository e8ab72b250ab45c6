"""Which trials are ended early."""

import optuna


def pruner_of(name: str, epochs: int) -> optuna.pruners.BasePruner:
    """A pruner by name, for metrics that are reported at the epochs 1 to `epochs`.

    First judged at a quarter of the epochs, Hyperband saves half as much (docs/search.md).
    """
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs)
    if name == "successive-halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1)
    return optuna.pruners.NopPruner()
