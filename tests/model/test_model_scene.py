import math
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from model.array import PlanarArray
from model.estimators import sample_covariance
from model.scene import SPLITS, Scenes, SceneSettings, check_scenes, simulate


def traces(R: Tensor) -> Tensor:
    return R.diagonal(dim1=-2, dim2=-1).sum(-1)


def same(a: Scenes, b: Scenes) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def long_scenes(**changes: Any) -> Scenes:
    settings = SceneSettings(
        array=PlanarArray(n_h=4, n_v=4), snapshots=4096, dtype=torch.complex128, **changes
    )
    return simulate(settings, 6, split="test", seed=5)


def test_the_same_seed_gives_the_same_scenes(settings: SceneSettings) -> None:
    first = simulate(settings, 4, split="train", seed=7)
    torch.manual_seed(99)  # the global random state has no say
    assert same(first, simulate(settings, 4, split="train", seed=7))


def test_simulation_leaves_the_global_random_state_alone(settings: SceneSettings) -> None:
    before = torch.get_rng_state()
    simulate(settings, 4, split="train", seed=7)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("seed", [8, 0, 7 + 2**32, 2**63 - 1])
def test_another_seed_gives_other_scenes(settings: SceneSettings, seed: int) -> None:
    a = simulate(settings, 4, split="train", seed=7)
    b = simulate(settings, 4, split="train", seed=seed)
    assert not any(torch.equal(x, y) for x, y in zip(a.X, b.X, strict=True))
    assert not torch.allclose(a.R_true, b.R_true, atol=1e-2)


def test_splits_are_disjoint_even_for_the_same_seed(settings: SceneSettings) -> None:
    assert list(SPLITS) == ["train", "validation", "test"]
    seen = [
        (split, X.numpy().tobytes(), R.numpy().tobytes())
        for split in SPLITS
        for seed in range(4)
        for X, _, R in [
            scene
            for s in [simulate(settings, 16, split=split, seed=seed)]
            for scene in zip(*s, strict=True)
        ]
    ]
    assert len(seen) == 3 * 4 * 16
    assert len({X for _, X, _ in seen}) == len(seen)
    assert len({R for _, _, R in seen}) == len(seen)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("train", 68467), ("validation", 17341)),
        (("validation", 99963), ("test", 16567)),
        (("train", 87962), ("train", 103380)),
    ],
)
def test_streams_do_not_collide_in_32_bits(one: tuple[str, int], other: tuple[str, int]) -> None:
    settings = SceneSettings(array=PlanarArray(n_h=2, n_v=2))
    a, b = (simulate(settings, 2, split=split, seed=seed) for split, seed in (one, other))
    assert not torch.equal(a.X, b.X)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("snapshots", [5, 16, 40])
def test_what_a_batch_of_scenes_is(
    settings: SceneSettings, dtype: torch.dtype, snapshots: int
) -> None:
    X, R_samp, R_true = simulate(
        replace(settings, dtype=dtype, snapshots=snapshots), 10, split="test", seed=1
    )
    assert X.shape == (10, 16, snapshots)
    assert R_samp.shape == R_true.shape == (10, 16, 16)
    assert {X.dtype, R_samp.dtype, R_true.dtype} == {dtype}
    tolerance = 1e-5 if dtype == torch.complex64 else 1e-12
    for R in (R_samp, R_true):
        assert (traces(R) - 16).abs().max() < 16 * tolerance
        assert (R - R.mH).abs().max() < tolerance
    assert (R_samp - sample_covariance(X)).abs().max() < 20 * tolerance
    assert torch.linalg.eigvalsh(R_true).min() > 1e-3  # the noise floor at 20 dB is 0.0099
    assert (R_true.diagonal(dim1=-2, dim2=-1) - 1).abs().max() < 2 * tolerance


@pytest.mark.parametrize(("snapshots", "rank"), [(5, 5), (16, 16), (40, 16)])
def test_rank_of_the_sample_covariance(settings: SceneSettings, snapshots: int, rank: int) -> None:
    wide = replace(settings, snapshots=snapshots, dtype=torch.complex128)
    R_samp = simulate(wide, 10, split="train", seed=1).R_samp
    assert torch.linalg.matrix_rank(R_samp, hermitian=True).tolist() == [rank] * 10


def test_symbols_are_drawn_anew_in_every_snapshot(settings: SceneSettings) -> None:
    noise_free = replace(
        settings, max_sources=3, snr_db=(100.0, 100.0), snapshots=16, dtype=torch.complex128
    )
    X, _, R_true = simulate(noise_free, 30, split="train", seed=2)
    # Close sources have nearly parallel steering vectors: the truth says what rank to expect.
    eigenvalues = torch.linalg.eigvalsh(R_true)
    sources = (eigenvalues > 1e-8).sum(1)
    assert set(sources.tolist()) == {1, 2, 3}
    singular = torch.linalg.svdvals(X) / X.shape[-1] ** 0.5
    assert torch.equal((singular > 1e-4).sum(1), sources)


def test_every_number_of_sources_is_drawn(settings: SceneSettings) -> None:
    loud = replace(settings, snr_db=(60.0, 60.0), dtype=torch.complex128)
    R_true = simulate(loud, 400, split="train", seed=2).R_true
    counts = (torch.linalg.eigvalsh(R_true) > 3e-6).sum(1).bincount(minlength=6)
    assert counts[0] == 0
    assert len(counts) == 6
    assert counts[1:].min() > 40  # 80 are expected of each


def test_moments_of_the_snapshots_agree_with_the_truth() -> None:
    X, R_samp, R_true = long_scenes()
    error = (R_samp - R_true).flatten(1).norm(dim=1) / R_true.flatten(1).norm(dim=1)
    assert error.max() < 0.05  # about N / ||R|| / sqrt(L)
    assert X.mean(-1).abs().max() < 0.1
    # Circular: no correlation of X with its own conjugate.
    pseudo = (X @ X.mT / X.shape[-1]).flatten(1).norm(dim=1)
    assert (pseudo / R_true.flatten(1).norm(dim=1)).max() < 0.1


def test_the_snapshots_have_the_snr_of_the_settings() -> None:
    X, _, R_true = long_scenes(snr_db=(7.0, 7.0))
    # At most 5 of the 16 eigenvectors carry signal; the smallest ones see the noise alone.
    noise_space = torch.linalg.eigh(R_true).eigenvectors[..., :11]
    noise = (noise_space.mH @ X).abs().square().mean((1, 2))
    power = X.abs().square().mean((1, 2))
    snr_db = 10 * torch.log10((power - noise) / noise)
    assert (snr_db - 7.0).abs().max() < 0.2


def test_snr_is_uniform_in_its_interval(settings: SceneSettings) -> None:
    R_true = simulate(replace(settings, dtype=torch.complex128), 400, split="train", seed=4).R_true
    floor = torch.linalg.eigvalsh(R_true)[:, 0]
    snr_db = 10 * torch.log10((1 - floor) / floor)
    assert -5.0 <= float(snr_db.min()) < -4.5
    assert 19.5 < float(snr_db.max()) <= 20.0
    assert float(snr_db.mean()) == pytest.approx(7.5, abs=1.5)


def test_one_source_is_where_the_settings_say() -> None:
    settings = SceneSettings(
        array=PlanarArray(n_h=4, n_v=4),
        max_sources=1,
        azimuth_deg=(25.0, 25.0),
        elevation_deg=(-10.0, -10.0),
        distance=(1.5, 1.5),
        snr_db=(10.0, 10.0),
        dtype=torch.complex128,
    )
    R_true = simulate(settings, 1, split="train", seed=0).R_true[0]
    az, el, r = (torch.tensor(v).double() for v in (math.radians(25), math.radians(-10), 1.5))
    a = settings.array.steering(az, el, r)
    expected = (16 * torch.outer(a, a.conj()) + 0.1 * torch.eye(16)) / 1.1
    assert torch.allclose(R_true, expected, atol=1e-12)


def test_take_picks_the_same_scenes_in_all_parts(scenes: Scenes) -> None:
    taken = scenes.take(torch.tensor([5, 0]))
    for part, whole in zip(taken, scenes, strict=True):
        assert torch.equal(part, torch.stack([whole[5], whole[0]]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"snr_db": (-61.0, 0.0)}, "snr_db=-61.0: admissible is -60 <= snr_db <= 100 dB"),
        ({"snr_db": (0.0, 101.0)}, "snr_db=101.0: admissible is -60 <= snr_db <= 100 dB"),
        ({"snr_db": (0.0, math.inf)}, "snr_db=inf: admissible is -60 <= snr_db <= 100 dB"),
        (
            {"snr_db": (20.0, -5.0)},
            "snr_db=(20.0, -5.0): expected (low, high) with low <= high",
        ),
        (
            {"distance": (math.nan, 10.0)},
            "distance=(nan, 10.0): expected (low, high) with low <= high",
        ),
        (
            {"distance": (0.5, 1.0, 2.0)},
            "distance=(0.5, 1.0, 2.0): expected (low, high) with low <= high",
        ),
        ({"distance": (0.0, 1.0)}, "distance=0.0: admissible is 0.1 <= distance <= 1e+06 m"),
        (
            {"azimuth_deg": (-91.0, 0.0)},
            "azimuth_deg=-91.0: admissible is -90 <= azimuth_deg <= 90 degrees",
        ),
        (
            {"elevation_deg": (0.0, 90.5)},
            "elevation_deg=90.5: admissible is -90 <= elevation_deg <= 90 degrees",
        ),
        (
            {"max_sources": 0},
            "max_sources=0: admissible are the integers 1 <= max_sources <= 64",
        ),
        ({"snapshots": 1}, "snapshots=1: admissible are the integers 2 <= snapshots <= 4096"),
        ({"snapshots": 2.5}, "snapshots=2.5: admissible are the integers 2 <= snapshots <= 4096"),
        (
            {"dtype": torch.float32},
            "dtype=torch.float32: admissible are torch.complex64 and torch.complex128",
        ),
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        SceneSettings(**wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"split": "val"}, "split='val': admissible are train, validation, test"),
        ({"count": 0}, "count=0: admissible are the integers 1 <= count <= 1000000"),
        ({"seed": -1}, "seed=-1: admissible are the integers 0 <= seed <= 9223372036854775807"),
    ],
)
def test_draws_out_of_range(settings: SceneSettings, wrong: dict[str, Any], message: str) -> None:
    asked: dict[str, Any] = {"count": 2, "split": "train", "seed": 0} | wrong
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        simulate(settings, asked.pop("count"), **asked)


def spoilt(scenes: Scenes, part: str, value: complex, *index: int) -> Scenes:
    tensor = getattr(scenes, part).clone()
    tensor[index] = value
    return scenes._replace(**{part: tensor})


def test_good_scenes_pass_the_check(scenes: Scenes) -> None:
    check_scenes(scenes)
    check_scenes(Scenes(*(part.conj() for part in scenes)))


@pytest.mark.parametrize(
    ("part", "value"),
    [("X", math.nan), ("R_samp", complex(0, math.inf)), ("R_true", -math.inf)],
)
def test_a_value_that_is_not_finite_is_named(scenes: Scenes, part: str, value: complex) -> None:
    message = f"NaN or Inf in {part} of 1 of 8 scenes (index 6)"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_scenes(spoilt(scenes, part, value, 6, 1, 2))


def test_a_truth_that_is_not_hermitian_is_named_with_its_asymmetry(scenes: Scenes) -> None:
    R_true = torch.eye(16, dtype=torch.complex64).repeat(8, 1, 1)
    skewed = spoilt(scenes._replace(R_true=R_true), "R_true", 3.0, 2, 0, 1)
    # ||R - R^H|| = sqrt(2) 3, ||R|| = sqrt(16 + 9) = 5
    message = (
        "R_true is not Hermitian in 1 of 8 scenes (index 2): ||R - R^H|| / ||R|| up to 0.849, "
        "limit 0.0001"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_scenes(skewed)
    check_scenes(skewed, tolerance=0.85)


@pytest.mark.parametrize(("error", "accepted"), [(2.5e-4, True), (3.2e-4, False)])
def test_the_limit_of_the_asymmetry(scenes: Scenes, error: float, accepted: bool) -> None:
    R_true = torch.eye(16, dtype=torch.complex64).repeat(8, 1, 1)
    skewed = spoilt(scenes._replace(R_true=R_true), "R_true", error, 2, 0, 1)
    # sqrt(2) error / 4 against 1e-4
    if accepted:
        check_scenes(skewed)
    else:
        with pytest.raises(ValueError, match=r"up to 0\.000113, limit 0\.0001$"):
            check_scenes(skewed)


def test_all_problems_are_named_at_once(scenes: Scenes) -> None:
    bad = spoilt(scenes, "X", math.nan, 0)
    bad = spoilt(bad, "X", math.inf, 3)
    bad = spoilt(bad, "R_samp", math.nan, 5)
    bad = spoilt(bad, "R_true", 0.0, slice(1, 7))  # type: ignore[arg-type]  # a slice is an index
    bad = spoilt(bad, "R_true", 2.0, 7, 0, 1)
    message = (
        "NaN or Inf in X of 2 of 8 scenes (index 0, 3); "
        "NaN or Inf in R_samp of 1 of 8 scenes (index 5); "
        "R_true is zero in 6 of 8 scenes (index 1, 2, 3, 4, 5, ...); "
        "R_true is not Hermitian in 1 of 8 scenes (index 7): "
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        check_scenes(bad)


@pytest.mark.parametrize("part", ["R_samp", "R_true"])
def test_real_covariances_are_refused(scenes: Scenes, part: str) -> None:
    message = (
        f"{part} is torch.float32 [8, 16, 16]: admissible are torch.complex64 and "
        "torch.complex128; convert real and imaginary parts with torch.complex(re, im)"
    )
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        check_scenes(scenes._replace(**{part: getattr(scenes, part).real}))


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_the_check_does_not_depend_on_the_scale(scenes: Scenes, scale: float) -> None:
    check_scenes(scenes._replace(R_true=scenes.R_true * scale))
    skewed = spoilt(scenes, "R_true", 5.0, 0, 0, 1)
    with pytest.raises(ValueError, match="R_true is not Hermitian in 1 of 8 scenes"):
        check_scenes(skewed._replace(R_true=skewed.R_true * scale))
