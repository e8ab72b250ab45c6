"""Whether covariances are what is declared of them: their trace and their form. B4."""

import math

import torch
from torch import Tensor

from ris_diag.check import Threshold, check
from ris_diag.checks.data_covariance import NEEDS
from ris_diag.context import Context
from ris_diag.scenes import Offenders, pieces, place, splits


@check(
    "D014",
    "covariances-as-declared",
    title="Covariances have the declared trace, and R_samp is Hermitian and positive semidefinite",
    what="Looks at every R_samp and R_true of some hundred scenes of training and validation, and "
    "at all that is stored: the trace against Declared.trace, R_samp Hermitian and positive "
    "semidefinite (of the truth G006 sees to it; of what is stored this check does).",
    why="A loss compares any two matrices; one scene in a thousand that is scaled otherwise has "
    "the largest gradient of all.",
    sources=("B4", "B3"),
    signs=("trace-off", "not-hermitian", "negative-eigenvalues"),
    needs=NEEDS,
    thresholds=(
        Threshold(
            name="max_trace_error",
            value=1e-2,
            unit="relative",
            why="half precision rounds at 1e-3; another normalisation is off by a factor",
        ),
        Threshold(
            name="max_asymmetry",
            value=1e-4,
            unit="||R - R^H|| / ||R||, and the smallest eigenvalue over -||R||",
            why="complex64 storage rounds at 1e-7; a half-filled matrix shows at 1",
        ),
    ),
)
def covariances_as_declared(context: Context) -> None:
    subject = context.subject
    declared = subject.case.declared
    trace = None if declared is None else declared.trace
    if trace is None:
        context.say("trace not judged: Declared(trace=...) is not given")
    stored = subject.case.offers("stored")
    parts = {"R_samp": subject.covariance.sample, "R_true": subject.covariance.truth}
    for split in splits(subject):
        wrong: dict[tuple[str, str], Wrong] = {}
        for name, batch in pieces(subject, split):
            for part, function in parts.items():
                R = function(batch).detach()
                for sign, (values, offending) in _wrong(
                    context, R, trace, part == "R_samp" or stored
                ).items():
                    wrong.setdefault((part, sign), Wrong()).add(name, values, offending)
        for (part, sign), entry in wrong.items():
            if not len(entry.offenders):
                continue
            text, next_step = DEFECTS[sign]
            context.problem(
                f"split {split}: {part} {text.format(*entry.range, trace=trace or 0)} "
                f"in {entry.offenders}",
                sign=sign,
                place=entry.offenders.first if stored else place(subject, split, parts[part]),
                next_step=next_step,
            )
        context.measure(**{split: max((w.offenders.looked_at for w in wrong.values()), default=0)})


class Wrong:
    """The offenders of one defect with the range of what was measured of them."""

    def __init__(self) -> None:
        self.offenders = Offenders()
        self.range = (math.inf, -math.inf)

    def add(self, name: str, values: Tensor, offending: Tensor) -> None:
        """Enter a piece: values real [n], offending bool [n]."""
        self.offenders.add(name, offending)
        if offending.any():
            low, high = float(values[offending].min()), float(values[offending].max())
            self.range = (min(self.range[0], low), max(self.range[1], high))


DEFECTS = {
    "trace-off": (
        "has a trace of {0:.4g} to {1:.4g}, declared {trace:g},",
        "scale every covariance to the declared trace where it is made or loaded",
    ),
    "not-hermitian": (
        "is not Hermitian (||R - R^H|| / ||R|| up to {1:.2g})",
        "look for a forgotten conjugation, an empty triangle, a real part",
    ),
    "negative-eigenvalues": (
        "has negative eigenvalues (down to {0:.2g} ||R||)",
        "look for a difference of matrices, an estimate that isn't X X^H, a wrong reshape",
    ),
}


def _wrong(
    context: Context, R: Tensor, trace: float | None, form: bool
) -> dict[str, tuple[Tensor, Tensor]]:
    """Sign to what was measured and which matrices offend; D018 and G006 see to those with NaN."""
    limit = context.limit("max_asymmetry")
    finite = torch.isfinite(R.abs()).flatten(1).all(1)
    found = {}
    if trace is not None:
        traces = R.diagonal(dim1=1, dim2=2).real.sum(1)
        near = (traces - trace).abs() <= context.limit("max_trace_error") * trace
        found["trace-off"] = traces, finite & ~near
    if form:
        norm = R.flatten(1).norm(dim=1)
        asymmetry = (R - R.mH).flatten(1).norm(dim=1) / norm
        skewed = finite & (asymmetry > limit)
        found["not-hermitian"] = asymmetry, skewed
        usable = finite & ~skewed & (norm > 0)
        identity = torch.eye(R.shape[-1], dtype=R.dtype, device=R.device)
        scaled = R[usable] / norm[usable, None, None]
        negative, least = torch.zeros_like(usable), torch.zeros_like(norm)
        negative[usable] = torch.linalg.cholesky_ex(scaled + limit * identity).info != 0
        if negative.any():
            least[negative] = torch.linalg.eigvalsh(R[negative])[:, 0] / norm[negative]
        found["negative-eigenvalues"] = least, negative
    return found
