"""Settings of a scope: in force inside, all put back behind it, what resists them said."""

import itertools
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from ris_diag.determinism import WORKSPACE, deterministic

backends: Any = torch.backends
NEWER = hasattr(backends.cudnn, "conv")
PRECISIONS = ("cuda.matmul", "cudnn.conv", "cudnn.rnn", "mkldnn.matmul") if NEWER else ()


def of_backend(path: str) -> Any:
    backend, operation = path.split(".")
    return getattr(getattr(backends, backend), operation)


def legacy(read: Callable[[], object]) -> object:
    """A value, or that the two ways to set it disagree."""
    try:
        return read()
    except RuntimeError:
        return "mixed"


def settings() -> dict[str, object]:
    return {
        "algorithms": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "benchmark": backends.cudnn.benchmark,
        "deterministic": backends.cudnn.deterministic,
        "matmul": legacy(torch.get_float32_matmul_precision),
        "cublas": legacy(lambda: backends.cuda.matmul.allow_tf32),
        "cudnn": legacy(lambda: backends.cudnn.allow_tf32),
        "workspace": os.environ.get(WORKSPACE),
        "filters": list(warnings.filters),
        "showwarning": warnings.showwarning,
        **{path: of_backend(path).fp32_precision for path in PRECISIONS},
    }


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Tests set what they like."""
    mode = torch.get_deterministic_debug_mode()
    yield
    torch.set_deterministic_debug_mode(mode)
    backends.cudnn.benchmark = backends.cudnn.deterministic = False
    torch.set_float32_matmul_precision("highest")
    backends.cudnn.allow_tf32 = True
    for path in ("cuda.matmul", "mkldnn.matmul"):
        if NEWER:
            of_backend(path).fp32_precision = "none"


def put_same(numbers: torch.Tensor) -> None:
    """An operation without a deterministic form, on the CPU as well."""
    numbers.put_(torch.tensor([1, 1]), torch.ones(2))


def nothing() -> None:
    pass


SET: dict[str, Callable[[], object]] = {
    "as torch starts": nothing,
    "strict": lambda: torch.use_deterministic_algorithms(True),
    "warned": lambda: torch.use_deterministic_algorithms(True, warn_only=True),
    "benchmark": lambda: setattr(backends.cudnn, "benchmark", True),
    "cudnn deterministic": lambda: setattr(backends.cudnn, "deterministic", True),
    "TF32": lambda: setattr(backends.cuda.matmul, "allow_tf32", True),
    "no TF32 in cudnn": lambda: setattr(backends.cudnn, "allow_tf32", False),
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    **{
        f"{path} {value}": lambda path=path, value=value: setattr(  # type: ignore[misc]  # bound
            of_backend(path), "fp32_precision", value
        )
        for path, value in itertools.product(PRECISIONS, ("ieee", "tf32"))
    },
}


@pytest.mark.parametrize("raises", [False, True], ids=["ends", "raises"])
@pytest.mark.parametrize("before", SET)
def test_settings_are_put_back(before: str, raises: bool) -> None:
    SET[before]()
    kept = settings()
    try:
        with deterministic():
            assert settings() != kept
            if raises:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert raises
    assert settings() == kept


def test_settings_differ_where_they_are_set() -> None:
    """The comparison above can fail."""
    found = []
    for change in SET.values():
        change()
        found.append(settings())
    assert all(a != b for a, b in itertools.pairwise(found[:9]))


@pytest.mark.parametrize("before", SET)
def test_settings_inside(before: str) -> None:
    SET[before]()
    with deterministic():
        inside = settings()
        assert (inside["algorithms"], inside["warn_only"]) == (True, True)
        assert (inside["benchmark"], inside["deterministic"]) == (False, True)
        assert inside["workspace"] == ":4096:8"
        assert {inside[path] for path in PRECISIONS} <= {"ieee"}
        if kept_readable(before):
            assert (inside["matmul"], inside["cublas"]) == ("highest", False)
            assert inside["cudnn"] is False


def kept_readable(before: str) -> bool:
    """Whether nobody mixed the two ways."""
    return not before.endswith(("tf32", "conv ieee", "rnn ieee"))


@pytest.mark.parametrize("value", [None, ":16:8", ""])
def test_the_workspace_is_put_back(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv(WORKSPACE, raising=False)
    if value is not None:
        monkeypatch.setenv(WORKSPACE, value)
    with deterministic():
        assert os.environ[WORKSPACE] == ":4096:8"
    assert os.environ.get(WORKSPACE) == value


@pytest.mark.skipif(not NEWER, reason="torch 2.9 and newer")
def test_matmul_follows_the_general_setting_again() -> None:
    with deterministic():
        pass
    kept = backends.fp32_precision
    try:
        for general in ("ieee", "tf32"):
            backends.fp32_precision = general
            assert backends.cuda.matmul.fp32_precision == general
    finally:
        backends.fp32_precision = kept


def test_scopes_in_each_other() -> None:
    kept = settings()
    with deterministic() as outer:
        between = settings()
        with deterministic() as inner:
            put_same(torch.zeros(3))
        assert settings() == between
    assert settings() == kept
    assert (len(inner), outer) == (1, [])


def test_what_has_no_deterministic_form_is_said_once_with_its_line() -> None:
    with warnings.catch_warnings(record=True) as others:
        warnings.simplefilter("always")
        with deterministic() as said:
            for _ in range(3):
                put_same(torch.zeros(3))
            warnings.warn("of the user's own", stacklevel=1)
    line = put_same.__code__.co_firstlineno + 2
    assert said == [
        "not deterministic: put_ has no deterministic form, "
        f"tests/ris_diag/test_determinism.py:{line}"
    ]
    assert [str(other.message) for other in others] == ["of the user's own"]


def test_it_is_no_error_where_warnings_are() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with deterministic() as said:
            put_same(torch.zeros(3))
            with pytest.raises(UserWarning, match="own"):
                warnings.warn("of the user's own", stacklevel=1)
    assert len(said) == 1


def test_it_is_said_where_the_code_raises() -> None:
    found: list[list[str]] = []

    def raising() -> None:
        with deterministic() as said:
            found.append(said)
            put_same(torch.zeros(3))
            raise ValueError("theirs")

    with pytest.raises(ValueError, match="theirs"):
        raising()
    assert len(found[0]) == 1


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "scatter add CUDA does not have a deterministic implementation, but you set "
            "'torch.use_deterministic_algorithms(True, warn_only=True)'.",
            "scatter add CUDA has no deterministic form",
        ),
        (
            "Deterministic behavior was enabled with either "
            "`torch.use_deterministic_algorithms(True)` or another, but this operation is not "
            f"deterministic because it uses CuBLAS. You must set {WORKSPACE}=:4096:8.",
            f"cuBLAS started before {WORKSPACE} was set",
        ),
        (
            "Attention defaults to a non-deterministic algorithm. To enable it call "
            "torch.use_deterministic_algorithms(True, warn_only=False).",
            "Attention defaults to a non-deterministic algorithm",
        ),
    ],
)
def test_words_of_torch(text: str, line: str) -> None:
    with deterministic() as said:
        warnings.warn(text, stacklevel=1)
    assert said[0].partition(", tests")[0] == f"not deterministic: {line}"
