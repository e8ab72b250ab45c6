"""Names of devices, their part of a test id, which GPU a worker takes."""

import pytest

from ris_diag.devices import device_names, is_device, label, numbered
from ris_diag.errors import DeviceError


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:0", "cuda:12"])
def test_devices(name: str) -> None:
    assert is_device(name)


@pytest.mark.parametrize(
    "name", ["", "cpu:0", "cuda:", "cuda:01", "cuda:-1", "CUDA", "mps", "cuda0"]
)
def test_other_names(name: str) -> None:
    assert not is_device(name)


@pytest.mark.parametrize(
    ("name", "part"), [("cpu", "cpu"), ("cuda", "cuda0"), ("cuda:0", "cuda0"), ("cuda:7", "cuda7")]
)
def test_part_of_a_test_id(name: str, part: str) -> None:
    assert label(name) == part


@pytest.mark.parametrize(
    ("worker", "count", "numbers"),
    [
        ([None], 4, [0]),
        ([0, 1, 2, 3], 4, [0, 1, 2, 3]),
        ([0, 1, 2, 3, 4], 2, [0, 1, 0, 1, 0]),
        ([0, 5], 1, [0, 0]),
        ([None, 3], 0, [0, 0]),
    ],
)
def test_workers_spread_over_the_gpus(
    worker: list[int | None], count: int, numbers: list[int]
) -> None:
    assert [numbered("cuda", k, count) for k in worker] == [f"cuda:{n}" for n in numbers]


@pytest.mark.parametrize("name", ["cpu", "cuda:1"])
def test_what_has_a_number_is_the_same_for_all_workers(name: str) -> None:
    assert numbered(name, 3, 8) == name


def test_lists() -> None:
    assert device_names("cpu", "--x") == ["cpu"]
    assert device_names("cpu, cuda:1", "--x") == ["cpu", "cuda:1"]
    assert device_names(["cuda", "cpu,cuda:1"], "--x") == ["cuda", "cpu", "cuda:1"]


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(DeviceError) as refused:
        device_names("cuda:0,tpu,cuda,mps", "--x")
    assert str(refused.value) == (
        "--x cuda:0,tpu,cuda,mps: tpu isn't known, mps isn't known, cuda0 is there twice; "
        "expected cpu, cuda or cuda:N, separated by commas"
    )
