"""What a page draws, each from the measurements of one check; plain data in, SVG out."""

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ris_diag.report.drawing import INK, SERIES, style, svg

SIZE = (4.3, 2.9)  # inches: letters keep their size on a narrow screen
Measured = Mapping[str, Any]


def number(value: Any) -> float:
    """A measurement as a float; NaN for None. JSON holds "NaN" and "Infinity" as text."""
    return math.nan if value is None else float(value)


def numbers(values: Sequence[Any]) -> list[float]:
    """The same of many."""
    return [number(value) for value in values]


def litmus_losses(measured: Measured, name: str) -> str:
    """Loss and beta over the litmus steps, with the losses at equal beta."""
    losses = numbers(measured["losses"])
    beta = numbers(measured.get("beta", []))
    with style():
        figure, axes, below = _with_beta(beta)
        steps = range(1, len(losses) + 1)
        axes.plot(steps, losses, "o-", color=SERIES[0], label="loss")
        ends = [number(measured[key]) for key in ("loss_first_weights", "loss_last_weights")]
        equal = "at equal beta" if below is not None else "first and last weights"
        axes.plot([1, max(len(losses), 2)], ends, "D", color=SERIES[1], mfc="none", label=equal)
        if below is not None:
            below.plot(range(1, len(beta) + 1), beta, "s-", color=SERIES[2], markersize=3)
        axes.margins(y=0.12)
        _steps(below or axes, "optimiser step")
        axes.set_title("Litmus: five steps on one batch")
        axes.legend()
        return svg(figure, name, f"Loss over {len(losses)} litmus steps")


def overfit_losses(measured: Measured, name: str) -> str:
    """Training and validation loss over the epochs, beta, and the floor of the blend."""
    train, held = numbers(measured["epoch_train"]), numbers(measured["epoch_validation"])
    beta, nmse = numbers(measured["epoch_beta"]), measured["nmse"]
    epochs = range(1, len(train) + 1)
    with style():
        figure, axes, below = _with_beta(beta)
        axes.plot(epochs, train, color=SERIES[0], label="training")
        axes.plot(epochs, held, color=SERIES[1], label="validation")
        axes.axhline(number(nmse["blend floor"]), color=INK, ls=":", lw=1.2, label="blend floor")
        if below is not None:
            below.plot(range(1, len(beta) + 1), beta, color=SERIES[2])
        _steps(below or axes, "epoch")
        axes.set_ylim(bottom=0)
        axes.set_title("Overfit: loss on fresh scenes")
        axes.legend()
        return svg(figure, name, f"Training and validation loss over {len(train)} epochs")


def memorise_losses(measured: Measured, name: str) -> str:
    """Loss on the one batch that is to be memorised, and its floor; logarithmic where it can be."""
    steps, losses = numbers(measured["loss_steps"]), numbers(measured["losses"])
    floor = number(measured.get("loss_floor", measured.get("floor")))
    with style():
        figure, axes, _ = _with_beta([])
        positive = min([v for v in losses if math.isfinite(v)], default=0.0) > 0
        if positive:
            axes.set_yscale("log")
        drawable = math.isfinite(floor) and (floor > 0 or not positive)
        told = "loss" if drawable or math.isnan(floor) else f"loss; its floor is {floor:.3g}"
        axes.plot(steps, losses, color=SERIES[0], label=told)
        if drawable:
            axes.axhline(floor, color=INK, ls=":", lw=1.2, label=f"floor {floor:.3g}")
        _steps(axes, "optimiser step")
        axes.set_title("Memorising one batch" + (", logarithmic" if positive else ""))
        axes.legend()
        return svg(figure, name, f"Loss over {int(max(steps, default=0))} steps on one fixed batch")


def gradient_flow(modules: Mapping[str, Measured], name: str) -> str:
    """Gradient norm of every module at every step, by colour; a cross where it is exactly zero."""
    rows = np.array([numbers(values["gradient_norm"]) for values in modules.values()])
    logs = np.log10(np.where(np.isfinite(rows) & (rows > 0), rows, np.nan))
    dead = np.argwhere(rows == 0)
    with style():
        figure = Figure(figsize=(SIZE[0], 1.0 + 0.19 * max(4, len(rows))), layout="constrained")
        axes = figure.subplots()
        axes.grid(visible=False)
        image = axes.imshow(logs, aspect="auto", cmap="viridis", interpolation="nearest")
        axes.plot(dead[:, 1], dead[:, 0], "x", color=INK, markersize=5)
        labels = [_shortened(module) for module in modules]
        axes.set_yticks(range(len(labels)), labels, fontsize=8, parse_math=False)
        axes.set_xticks(range(rows.shape[1]), [str(k + 1) for k in range(rows.shape[1])])
        axes.set_xlabel("optimiser step")
        axes.set_title("log10 of the gradient norm")
        figure.colorbar(image, ax=axes).outline.set_visible(False)
        return svg(figure, name, f"Gradient norm of {len(rows)} modules at every step")


def estimators(measured: Measured, name: str) -> str:
    """Mean NMSE of every estimator with its 95 % confidence interval."""
    nmse, errors = measured["nmse"], measured["nmse_standard_error"]
    labels = list(nmse)
    with style():
        figure = Figure(figsize=(SIZE[0], 0.9 + 0.28 * len(labels)), layout="constrained")
        axes = figure.subplots()
        for row, label in enumerate(labels):
            own = label in ("R_pred", "R_blend")
            mean, error = number(nmse[label]), number(errors[label])
            if not math.isfinite(mean):
                continue
            axes.errorbar(
                mean, row, xerr=1.96 * error if math.isfinite(error) else None, fmt="o", capsize=3,
                color=INK if label == "blend floor" else SERIES[0] if own else SERIES[1],
            )  # fmt: skip
        axes.set_yticks(range(len(labels)), labels, parse_math=False)
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.set_xlabel("NMSE on fresh scenes, 95 % confidence")
        return svg(figure, name, f"NMSE of {len(labels)} estimators with confidence intervals")


def eigenvalues(scene: Measured, name: str) -> str:
    """Eigenvalues of truth, prediction, blend and sample covariance over their mean."""
    with style():
        figure, axes, _ = _with_beta([])
        for (label, shown), look in zip(scene["estimates"].items(), _looks(), strict=False):
            values = numbers(shown["eigenvalues_db"])
            axes.plot(range(1, len(values) + 1), values, label=label, **look)
        _steps(axes, f"number of the eigenvalue, of {scene['elements']}")
        axes.set_ylabel("dB over their mean")
        axes.set_title("Eigenvalues of one scene")
        axes.legend(loc="upper right")
        return svg(figure, name, "Eigenvalue spectra of truth, prediction, blend and sample")


def magnitudes(scene: Measured, name: str) -> str:
    """|R| of the four, in blocks, on one scale."""
    size = scene["map_size"]
    with style():
        figure = Figure(figsize=(SIZE[0], 4.3), layout="constrained")
        grid = figure.subplots(2, 2)
        for axes in grid.flat[len(scene["estimates"]) :]:
            axes.set_axis_off()
        for (label, shown), axes in zip(scene["estimates"].items(), grid.flat, strict=False):
            values = np.frombuffer(base64.b64decode(shown["map"]), np.uint8).reshape(size, size)
            image = axes.imshow(
                values / 255 * number(scene["largest"]), cmap="viridis", vmin=0,
                vmax=number(scene["largest"]), interpolation="nearest",
                extent=(0.5, scene["elements"] + 0.5, scene["elements"] + 0.5, 0.5),
            )  # fmt: skip
            axes.grid(visible=False)
            axes.set_title(f"|{label}|")
            axes.tick_params(labelsize=7.5)
        figure.colorbar(image, ax=grid, shrink=0.5).outline.set_visible(False)
        return svg(figure, name, "Magnitudes of truth, prediction, blend and sample covariance")


def music(scene: Measured, name: str) -> str:
    """MUSIC spectra over azimuth, with the true directions."""
    found = scene["music"]
    with style():
        figure, axes, _ = _with_beta([])
        azimuth = numbers(found["azimuth_deg"])
        for place, source in enumerate(numbers(found["sources_deg"])):
            label = None if place else "true azimuth"
            axes.axvline(source, color=INK, ls=":", lw=1.2, label=label)
        for (label, values), look in zip(found["spectrum_db"].items(), _looks(), strict=False):
            axes.plot(azimuth, numbers(values), label=label, **look)
        axes.set_xlabel("azimuth [degrees], best elevation and range")
        axes.set_ylabel("dB below the peak")
        axes.set_title("MUSIC spectrum of the scene")
        axes.set_ylim(top=1)
        figure.legend(ncols=3, loc="outside lower center")
        figure.set_size_inches(SIZE[0], 3.4)
        return svg(figure, name, f"MUSIC spectra, {len(found['sources_deg'])} true directions")


def _looks() -> list[dict[str, Any]]:
    """Of truth, prediction, blend, sample: told apart without colour, too."""
    dashes = ("-", "--", "-.", ":")
    return [{"color": c, "ls": ls} for c, ls in zip(SERIES, dashes, strict=True)]


def _with_beta(beta: Sequence[float]) -> tuple[Figure, Axes, Axes | None]:
    """Axes, and smaller ones below for beta where there is one."""
    shown = any(math.isfinite(value) for value in beta)
    figure = Figure(figsize=SIZE, layout="constrained")
    if not shown:
        return figure, figure.subplots(), None
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    below.set_ylabel("beta")
    return figure, axes, below


def _steps(axes: Axes, label: str) -> None:
    axes.set_xlabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _shortened(name: str, longest: int = 22) -> str:
    return name if len(name) <= longest else f"…{name[1 - longest :]}"
