"""Geometry of the surface and its near-field steering vectors: metres and radians."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from model.validate import require_count, require_number


@dataclass(frozen=True, kw_only=True)
class PlanarArray:
    """A uniform planar array, centred on the origin of the x-y plane.

    Attributes:
        n_h, n_v: elements along x (horizontal) and y (vertical); N = n_h * n_v.
        wavelength: of the carrier [m]; 0.3 m is 1 GHz.
        spacing: between neighbouring elements [m]; half a wavelength by default.
    """

    n_h: int = 12
    n_v: int = 12
    wavelength: float = 0.3
    spacing: float = 0.15

    def __post_init__(self) -> None:
        require_count("n_h", self.n_h, 1, 64)
        require_count("n_v", self.n_v, 1, 64)
        require_number("wavelength", self.wavelength, 0.0, 10.0, open_low=True, unit="m")
        require_number("spacing", self.spacing, 0.0, 10.0, open_low=True, unit="m")

    @property
    def size(self) -> int:
        """Number of elements, N."""
        return self.n_h * self.n_v

    @property
    def wavenumber(self) -> float:
        """k0 = 2 pi / wavelength [rad/m]."""
        return 2 * math.pi / self.wavelength

    def positions(self) -> Tensor:
        """Element positions (x, y): float64 [N, 2], metres; element n = i_h * n_v + i_v."""
        x = (torch.arange(self.n_h, dtype=torch.float64) - (self.n_h - 1) / 2) * self.spacing
        y = (torch.arange(self.n_v, dtype=torch.float64) - (self.n_v - 1) / 2) * self.spacing
        return torch.cartesian_prod(x, y).reshape(-1, 2)

    def steering(self, azimuth: Tensor, elevation: Tensor, distance: Tensor) -> Tensor:
        """Steering vectors in the Fresnel (second-order) approximation of the spherical wave.

        `a_n = N^-1/2 exp(j k0 [x_n sin(az) cos(el) + y_n sin(el) - (x_n^2 + y_n^2) / (2 r)])`

        The quadratic term drops the factor that shortens the aperture away from broadside, so
        the phase is right near broadside and for r well above the aperture; `steering_exact` is
        the spherical phase to compare with.

        Args:
            azimuth, elevation: float64 [...], radians.
            distance: float64 [...], metres from the centre of the array.

        Returns:
            complex128 [..., N], unit norm.
        """
        x, y = self.positions().unbind(1)
        path = (
            x * (azimuth.sin() * elevation.cos())[..., None]
            + y * elevation.sin()[..., None]
            - (x.square() + y.square()) / (2 * distance[..., None])
        )
        return self._unit_norm(path)

    def steering_exact(self, azimuth: Tensor, elevation: Tensor, distance: Tensor) -> Tensor:
        """Steering vectors with the exact spherical phase `k0 (r - |source - element|)`.

        Arguments and result as in `steering`.
        """
        x, y = self.positions().unbind(1)
        u = (azimuth.sin() * elevation.cos())[..., None]
        v = elevation.sin()[..., None]
        r = distance[..., None]
        # |source - element|^2 = r^2 - 2 r (x u + y v) + x^2 + y^2
        to_element = (r.square() - 2 * r * (x * u + y * v) + x.square() + y.square()).sqrt()
        return self._unit_norm(r - to_element)

    def _unit_norm(self, path: Tensor) -> Tensor:
        return torch.polar(torch.full_like(path, self.size**-0.5), self.wavenumber * path)
