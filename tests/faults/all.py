"""Every planted fault: those of one process, and those that take several."""

from tests.faults import (  # noqa: F401  # each enters its faults
    catalogue,
    covariance_faults,
    data_faults,
    evaluation_faults,
    mechanics,
    oracle_faults,
    plant_data,
    plant_derivatives,
    plant_device,
    plant_distributed,
    plant_estimates,
    plant_evaluation,
    plant_labels,
    plant_loop,
    plant_loss,
    plant_model,
    plant_numerics,
    plant_optimiser,
    plant_pairing,
    plant_precision,
    plant_ranks,
    plant_scenes,
    plant_script,
    plant_stages,
    plant_validation,
    plant_wiring,
    ranked_ways,
)
from tests.faults.registry import FAULTS as ALL_FAULTS
from tests.faults.registry import RANKED as RANKED_FAULTS

__all__ = ["ALL_FAULTS", "RANKED_FAULTS"]
