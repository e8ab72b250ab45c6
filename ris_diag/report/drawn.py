"""Which figures a run has the numbers for, and why it lacks the others."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ris_diag.flow import flow_in
from ris_diag.report import figures
from ris_diag.result import Result


class Drawn(NamedTuple):
    """A figure of a page, or the sentence that stands in its place.

    Attributes:
        svg: "" where there is none.
        text: below it.
    """

    svg: str
    text: str


class Flow(NamedTuple):
    """Gradient flow: the figure, and a row of numbers for every module."""

    drawn: Drawn
    check: str
    rows: list[tuple[str, float | None, float | None, float | None]]


BETA_WALKS = (
    "beta walks from its start to its end, and lowers the loss by itself where R_samp is nearer to "
    "the truth: the marks compare first and last weights at one beta."
)
NO_BETA = "The marks are the loss of the first and of the last weights, in eval mode."
Draw = Callable[[Any, str], str]


def losses(results: Iterable[Result], prefix: str) -> list[Drawn]:
    """Litmus, memorising, overfit."""
    held = {result.id: result for result in results}
    betas = held["L001"].measurements.get("beta", ()) if "L001" in held else ()
    return [
        _drawn(
            held.get("L001"), "L001", "losses", figures.litmus_losses, f"{prefix}litmus",
            BETA_WALKS if any(beta is not None for beta in betas) else NO_BETA,
        ),
        _drawn(
            held.get("O001"), "O001", "losses", figures.memorise_losses, f"{prefix}memorise",
            "One batch that is to be learnt by heart: the loss must come down to its floor.",
        ),
        _drawn(
            held.get("O002"), "O002", "epoch_train", figures.overfit_losses, f"{prefix}overfit",
            "The floor is what the blend would reach if R_pred were perfect, at the last beta.",
        ),
    ]  # fmt: skip


def flow(results: Iterable[Result], prefix: str) -> Flow:
    """Of the litmus steps, or of the first steps of any training."""
    check, modules = flow_in(results)
    if not modules:
        text = "No step was watched: neither L001 nor L014 ran on this case to its end."
        return Flow(Drawn("", text), "", [])
    text = (
        "A cross is a gradient that is exactly zero, an empty field one that isn't there. A layer "
        "that starts at zero lets none through to those in front of it in the first step: that is "
        "healthy."
    )
    drawn = Drawn(figures.gradient_flow(modules, f"{prefix}flow"), text)
    rows = [
        (name, _last(v["gradient_norm"]), _last(v["update_to_weight"]), _last(v["zero_gradients"]))
        for name, v in modules.items()
    ]
    return Flow(drawn, check, rows)


def scene(results: Iterable[Result], prefix: str) -> list[Drawn]:
    """Eigenvalues, |R| and the MUSIC spectrum of one scene."""
    result = next((r for r in results if r.id == "O002"), None)
    shown = {} if result is None else result.measurements.get("scene", {})
    if not shown:
        return [Drawn("", _reason(result, "O002"))]
    found = [
        Drawn(
            figures.eigenvalues(shown, f"{prefix}eigenvalues"),
            "K sources stand out of the noise of the truth; the sample covariance of L snapshots "
            "has no more than L eigenvalues above zero.",
        ),
        Drawn(
            figures.magnitudes(shown, f"{prefix}magnitudes"),
            f"{shown['elements']} elements in {shown['map_size']} blocks, one scale for all.",
        ),
    ]
    if "music" in shown:
        text = "A peak at each dotted line, and nowhere else, is what the estimate is for."
        found.append(Drawn(figures.music(shown, f"{prefix}music"), text))
    else:
        text = "No MUSIC spectrum: the case doesn't give Case.covariance.scene, a scene whose "
        found.append(Drawn("", text + "directions are known, with its steering vectors."))
    return found


def estimators(results: Iterable[Result], prefix: str) -> tuple[Drawn, list[tuple[str, Any, Any]]]:
    """NMSE on fresh scenes: the figure, and (name, mean, standard error) of every estimator."""
    result = next((r for r in results if r.id == "O002"), None)
    drawn = _drawn(
        result, "O002", "nmse", figures.estimators, f"{prefix}estimators",
        "A network that doesn't beat the best classical estimator isn't worth a search.",
    )  # fmt: skip
    if not drawn.svg or result is None:
        return drawn, []
    nmse, errors = result.measurements["nmse"], result.measurements["nmse_standard_error"]
    return drawn, [(name, nmse[name], errors[name]) for name in nmse]


def _drawn(result: Result | None, check: str, key: str, draw: Draw, name: str, text: str) -> Drawn:
    measured: Mapping[str, Any] = {} if result is None else result.measurements
    if not measured.get(key):
        return Drawn("", _reason(result, check))
    return Drawn(draw(measured, name), text)


def _reason(result: Result | None, check: str) -> str:
    """Why there is nothing to draw of a check."""
    if result is None:
        return f"{check} didn't run: it wasn't asked for, or the gate closed in front of it."
    if result.status == "skip":
        return f"{result.name} was skipped: {result.expected or result.cause}."
    return f"{result.name} came to no numbers: {result.cause or result.status}."


def _last(values: list[Any]) -> float | None:
    """The last number that is there."""
    there = [figures.number(value) for value in values if value is not None]
    return there[-1] if there else None
