"""Small folders of scenes as a simulation pipeline writes them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

N, L, M, MOST = 9, 16, 4, 5
Arrays = dict[str, NDArray[Any]]


def scenes(seed: int, count: int) -> Arrays:
    """The nine arrays of some scenes, float32."""
    rng = np.random.default_rng(seed)
    K = rng.integers(1, MOST + 1, count)
    present = np.arange(MOST) < K[:, None]
    azimuth = rng.uniform(-1.0, 1.0, (count, MOST))
    elevation = rng.uniform(-0.5, 0.5, (count, MOST))
    distance = rng.uniform(0.5, 10.0, (count, MOST))
    x, y = (c.reshape(-1, 1) - 1.0 for c in np.meshgrid(np.arange(3.0), np.arange(3.0)))
    u, v = np.sin(azimuth) * np.cos(elevation), np.sin(elevation)
    A = np.exp(1j * np.pi * (x * u[:, None] + y * v[:, None])) * present[:, None]
    snr = rng.uniform(0.0, 20.0, count)
    power = present / K[:, None]
    noise = 10 ** (-snr / 10)
    X = A @ (circular(rng, count, MOST, L) * np.sqrt(power)[..., None])
    X = X + np.sqrt(noise)[:, None, None] * circular(rng, count, N, L)
    R = (A * power[:, None]) @ hermitian(A) + noise[:, None, None] * np.eye(N)
    R_samp = X @ hermitian(X)
    H_full, codes = circular(rng, count, M, N), circular(rng, count, L, N)
    H = circular(rng, count, L, M)
    y_received = np.einsum("bmn,bln,bnl->blm", H_full, codes, X)
    ptr = np.concatenate([part * present for part in (azimuth, elevation, distance)], 1)
    return {
        "y": pairs(y_received),
        "H": pairs(H),
        "H_full": pairs(H_full),
        "codes": pairs(codes),
        "ptr": ptr.astype(np.float32),
        "K": K.astype(np.int64),
        "snr": snr.astype(np.float32),
        "R": pairs(trace_n(R)),
        "R_samp": pairs(trace_n(R_samp)),
    }


def circular(rng: np.random.Generator, *shape: int) -> NDArray[np.complex128]:
    real, imag = rng.standard_normal((2, *shape)) / np.sqrt(2)
    drawn: NDArray[np.complex128] = real + 1j * imag
    return drawn


def hermitian(A: NDArray[np.complex128]) -> NDArray[np.complex128]:
    return A.conj().swapaxes(1, 2)


def trace_n(R: NDArray[np.complex128]) -> NDArray[np.complex128]:
    scaled: NDArray[np.complex128] = R * (N / np.einsum("bii->b", R).real)[:, None, None]
    return scaled


def pairs(z: NDArray[np.complex128]) -> NDArray[np.float32]:
    return np.stack([z.real, z.imag], -1).astype(np.float32)


def write(
    folder: Path,
    change: Callable[[str, Arrays], Arrays] = lambda name, arrays: arrays,
    *,
    validation: str = "val",
    save: Callable[..., None] = np.savez,
) -> Path:
    """Two files of training, one of validation and of test; `change` gets each by its name."""
    for seed, (name, count) in enumerate(
        {"train/a": 40, "train/b": 30, f"{validation}/a": 40, "test/a": 20}.items()
    ):
        path = folder / f"{name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path, **change(name, scenes(seed, count)))
    return folder
