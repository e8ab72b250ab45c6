"""Healthy trainings of many kinds, as their authors would write them: no check may complain."""

from tests.faults import (  # noqa: F401  # each enters its trainings
    plant_derivatives,
    plant_evaluation,
    plant_labels,
    plant_model,
    plant_numerics,
    plant_optimiser,
    plant_pairing,
    plant_precision,
    plant_scenes,
    plant_stages,
    plant_validation,
    zoo_batches,
    zoo_estimates,
    zoo_fit,
    zoo_grounds,
    zoo_judged,
    zoo_kinds,
    zoo_loops,
    zoo_nets,
    zoo_rare,
    zoo_scripts,
    zoo_step,
    zoo_ways,
)
from tests.faults.zoo_parts import ZOO

__all__ = ["ZOO"]
