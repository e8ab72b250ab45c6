import cmath
import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from model.array import PlanarArray


def real(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def directions(count: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    az, el, r = torch.rand(3, count, generator=generator, dtype=torch.float64)
    return (2 * az - 1) * 1.0, (2 * el - 1) * 0.5, 0.5 + 9.5 * r


def worst_phase(a: Tensor, b: Tensor) -> float:
    return float((a * b.conj()).angle().abs().max())


def test_default_surface() -> None:
    array = PlanarArray()
    assert (array.n_h, array.n_v, array.size) == (12, 12, 144)
    assert (array.wavelength, array.spacing) == (0.3, 0.15)
    assert array.wavenumber == pytest.approx(2 * math.pi / 0.3)


def test_positions_are_listed_column_by_column_around_the_origin() -> None:
    expected = [(-0.1, -0.2), (-0.1, 0.0), (-0.1, 0.2), (0.1, -0.2), (0.1, 0.0), (0.1, 0.2)]
    got = PlanarArray(n_h=2, n_v=3, spacing=0.2).positions()
    assert got.dtype == torch.float64
    assert torch.allclose(got, torch.tensor(expected, dtype=torch.float64), atol=1e-15)


@pytest.mark.parametrize(("n_h", "n_v"), [(1, 1), (4, 4), (5, 3), (12, 12)])
def test_positions_are_centred_and_evenly_spaced(n_h: int, n_v: int) -> None:
    array = PlanarArray(n_h=n_h, n_v=n_v, spacing=0.07)
    positions = array.positions()
    assert positions.shape == (n_h * n_v, 2)
    assert array.size == n_h * n_v
    assert positions.mean(0).abs().max() < 1e-15
    grid = positions.reshape(n_h, n_v, 2)
    assert torch.allclose(grid[..., 0].diff(dim=0), torch.full((n_h - 1, n_v), 0.07).double())
    assert torch.allclose(grid[..., 1].diff(dim=1), torch.full((n_h, n_v - 1), 0.07).double())


@pytest.mark.parametrize("kind", ["steering", "steering_exact"])
def test_steering_vectors_have_unit_norm_and_constant_modulus(kind: str) -> None:
    array = PlanarArray(n_h=5, n_v=3)
    a = getattr(array, kind)(*(value.reshape(2, 10) for value in directions(20)))
    assert a.shape == (2, 10, 15)
    assert a.dtype == torch.complex128
    assert torch.allclose(a.abs(), torch.full_like(a.real, 15**-0.5), rtol=1e-12)


def test_an_entry_in_closed_form() -> None:
    azimuth, elevation, distance = math.radians(30), math.radians(-20), 2.0
    a = PlanarArray(n_h=4, n_v=4).steering(real(azimuth), real(elevation), real(distance))
    # Element 4 * 1 + 3 lies at x = -0.075 m, y = 0.225 m.
    path = (
        -0.075 * math.sin(azimuth) * math.cos(elevation)
        + 0.225 * math.sin(elevation)
        - (0.075**2 + 0.225**2) / (2 * distance)
    )
    expected = 0.25 * cmath.exp(2j * math.pi / 0.3 * path)
    assert complex(a[0, 7]) == pytest.approx(expected, abs=1e-14)


def test_the_exact_phase_is_the_distance_in_space() -> None:
    array = PlanarArray(n_h=4, n_v=3)
    az, el, r = directions(30)
    source = r[:, None] * torch.stack([az.sin() * el.cos(), el.sin(), az.cos() * el.cos()], 1)
    elements = torch.cat([array.positions(), torch.zeros(12, 1, dtype=torch.float64)], 1)
    path = r[:, None] - torch.cdist(source, elements)
    expected = torch.exp(1j * array.wavenumber * path) / 12**0.5
    assert torch.allclose(array.steering_exact(az, el, r), expected, atol=1e-12)


def test_fresnel_agrees_with_the_exact_phase_at_broadside() -> None:
    array = PlanarArray()
    where = real(0.0), real(0.0), real(10.0)
    error = worst_phase(array.steering(*where), array.steering_exact(*where))
    # The next term of the series: k0 rho^4 / (8 r^3) at the corner.
    rho = array.positions().norm(dim=1).max()
    expected = float(array.wavenumber * rho**4 / (8 * 10.0**3))
    assert error == pytest.approx(expected, rel=0.02)
    assert error < 0.01


def test_fresnel_agrees_in_the_far_field_in_every_direction() -> None:
    array = PlanarArray()
    az, el, _ = directions(50)
    r = torch.full_like(az, 5000.0)
    assert worst_phase(array.steering(az, el, r), array.steering_exact(az, el, r)) < 0.01


def test_fresnel_departs_from_the_exact_phase_where_it_must() -> None:
    array = PlanarArray()
    near_and_aside = real(math.radians(60)), real(0.0), real(0.5)
    a, exact = array.steering(*near_and_aside), array.steering_exact(*near_and_aside)
    assert worst_phase(a, exact) > 1.0
    assert float((a.conj() * exact).sum().abs()) < 0.9


def test_the_near_field_bends_the_wavefront() -> None:
    array = PlanarArray()
    az, el = real(0.3), real(0.1)
    near, far = array.steering(az, el, real(1.0)), array.steering(az, el, real(1e6))
    assert float((near.conj() * far).sum().abs()) < 0.5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_h": 0}, "n_h=0: admissible are the integers 1 <= n_h <= 64"),
        ({"n_v": 65}, "n_v=65: admissible are the integers 1 <= n_v <= 64"),
        ({"n_h": 4.0}, "n_h=4.0: admissible are the integers 1 <= n_h <= 64"),
        ({"n_v": True}, "n_v=True: admissible are the integers 1 <= n_v <= 64"),
        ({"wavelength": 0.0}, "wavelength=0.0: admissible is 0 < wavelength <= 10 m"),
        ({"wavelength": math.nan}, "wavelength=nan: admissible is 0 < wavelength <= 10 m"),
        ({"spacing": -0.15}, "spacing=-0.15: admissible is 0 < spacing <= 10 m"),
        ({"spacing": math.inf}, "spacing=inf: admissible is 0 < spacing <= 10 m"),
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        PlanarArray(**wrong)
