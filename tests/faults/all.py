"""Every planted fault."""

from tests.faults import (  # noqa: F401  # each enters its faults
    catalogue,
    covariance_faults,
    data_faults,
    evaluation_faults,
    mechanics,
    oracle_faults,
    plant_data,
    plant_device,
    plant_evaluation,
    plant_loop,
    plant_loss,
    plant_model,
    plant_numerics,
    plant_optimiser,
    plant_precision,
    plant_scenes,
    plant_script,
    plant_wiring,
)
from tests.faults.registry import FAULTS as ALL_FAULTS

__all__ = ["ALL_FAULTS"]
