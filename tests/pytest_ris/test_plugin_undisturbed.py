"""Checks leave the process as they found it, whatever became of them."""

import pytest

BEFORE_AND_AFTER = """
import contextlib
import logging
import random

import numpy as np
import pytest
import torch
from torch.optim import optimizer

import tiny


def states():
    root = logging.getLogger()
    kind, keys, *rest = np.random.get_state()
    return dict(
        python=random.getstate(),
        numpy=(kind, keys.tolist(), *rest),
        torch=torch.get_rng_state().tolist(),
        handlers=list(root.handlers),
        level=root.level,
        disabled=root.manager.disable,
        backward=torch.autograd.backward,
        pre_hooks=list(optimizer._global_optimizer_pre_hooks),
        post_hooks=list(optimizer._global_optimizer_post_hooks),
        grad=torch.is_grad_enabled(),
        threads=torch.get_num_threads(),
        dtype=torch.get_default_dtype(),
    )


@pytest.mark.parametrize("check", ["L001", "L008", "L009"])
def test_states(ris_runner, check):
    logging.getLogger().setLevel(logging.ERROR)
    before = states()
    assert ris_runner.run_check(check).status == EXPECTED
    assert states() == before
    assert before["pre_hooks"] == before["post_hooks"] == []


def test_after_ris_run(ris_run):
    before = states()
    with pytest.raises(BaseException) if EXPECTED != "pass" else contextlib.nullcontext():
        ris_run("L001")
    assert states() == before


def test_comparison_can_fail():
    changed = [
        lambda: random.random(),
        lambda: np.random.rand(),
        lambda: torch.rand(1),
        lambda: logging.getLogger().addHandler(logging.NullHandler()),
        lambda: optimizer.register_optimizer_step_pre_hook(print),
    ]
    for change in changed:
        before = states()
        change()
        assert states() != before
    optimizer._global_optimizer_pre_hooks.clear()
"""


@pytest.mark.parametrize(
    ("case", "status"), [("learns", "pass"), ("frozen", "fail"), ("raising", "error")]
)
def test_states_are_left_as_found(project: pytest.Pytester, case: str, status: str) -> None:
    project.makepyfile(test_suite=f"EXPECTED = {status!r}\n" + BEFORE_AND_AFTER)
    result = project.runpytest_inprocess(f"--ris-case=tiny:{case}")
    result.assert_outcomes(passed=5)
