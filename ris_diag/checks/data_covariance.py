"""What a sample covariance tells of the truth, and in whose convention: B4."""

import torch
from torch import Tensor

from ris_diag.check import Threshold, check
from ris_diag.context import Context
from ris_diag.measure import listed
from ris_diag.scenes import (
    FEWEST,
    Scenes,
    mean_and_error_of,
    place,
    scenes,
    splits,
)

NEEDS = ("batch", "covariance.sample", "covariance.truth")
AS_EXPECTED = 1.5  # NMSE(R_samp) over that of as many Gaussian snapshots
PURELY_REAL = 1e-6
OF_ITS_OWN = 0.3  # ||R_samp - a X X^H|| / ||R_samp||: centred or averaged, but of these snapshots
SHIFTS, SHIFT_ERRORS = 4, 5.0
PAIRED = 0.5  # of the rows, and of the energy


def few(context: Context, found: Scenes) -> bool:
    """Whether too few scenes of a split can be judged; says so."""
    if not found.enough:
        context.say(
            f"not judged: split {found.split} has {len(found)} distinct scenes with finite "
            f"covariances and a positive trace, {FEWEST} are needed"
        )
    return not found.enough


def _parts(R: Tensor) -> Tensor:
    return torch.view_as_real(R).flatten(1)


@check(
    "D012",
    "side-input-informs",
    title="The sample covariance tells more of the truth than a constant does",
    what="Compares NMSE(R_samp), plain Frobenius and both scaled to trace N, with that of the zero "
    "matrix, 1, and of the best constant, the mean of the other scenes' truths, scene by scene; "
    "where the difference isn't clear, that of R_samp shrunk towards the constant. Where R_samp "
    "tells nothing of its own truth but of that of another row, the labels are shifted or permuted "
    "apart.",
    why="A sample covariance without signal is a Hermitian matrix like any other, and a blend with "
    "it trains: snapshots whose mean was removed and symbols held constant have cost months.",
    sources=("B4",),
    signs=("side-input-useless", "labels-independent"),
    needs=NEEDS,
    thresholds=(
        Threshold(
            name="max_nmse",
            value=1.0,
            unit="mean NMSE(R_samp)",
            why="the zero matrix has 1; a sample covariance of 16 snapshots has about 0.2",
        ),
        Threshold(
            name="min_errors",
            value=3.0,
            unit="standard errors of the difference to the constant",
            why="chance alone gives it in one of 700 runs",
        ),
    ),
)
def side_input_informs(context: Context) -> None:
    subject, measured = context.subject, {}
    for split in splits(subject):
        found = scenes(subject, split)
        if few(context, found):
            continue
        S, T = _parts(found.sample), _parts(found.truth)
        energy = T.square().sum(1)
        M = (T.sum(0) - T) / (len(T) - 1)
        nmse = (S - T).square().sum(1) / energy
        constant = (M - T).square().sum(1) / energy
        (mean, _), (free, _) = mean_and_error_of(nmse), mean_and_error_of(constant)
        gain, error = mean_and_error_of(constant - nmse)
        measured[split] = {"nmse": mean, "constant": free, "gain": gain, "error": error}
        if mean < context.limit("max_nmse") and gain > context.limit("min_errors") * error:
            continue
        shrunk, its_error = mean_and_error_of(constant - _shrunk(S, T, M))
        # Few scenes of strong and weak signals together leave the mean of the raw gain uncertain.
        informs = shrunk > context.limit("min_errors") * its_error
        if informs and mean < context.limit("max_nmse") and gain > 0:
            continue
        L = _snapshots(found)
        expected = float((T.shape[1] / 2 / (L * energy)).mean())
        if informs and mean < AS_EXPECTED * expected:
            context.say(
                f"split {split}: NMSE(R_samp) {mean:.3f} is what {L} snapshots give "
                f"({expected:.3f}), a constant has {free:.3f}: R_samp informs only if shrunk"
            )
            continue
        if _report_shift(context, found, nmse):
            continue
        context.problem(
            f"split {split}: mean NMSE(R_samp) is {mean:.3f} over {len(found)} scenes, a constant "
            f"(the mean of the other truths) has {free:.3f}: a gain of {gain:.3f} +- {error:.3f}; "
            f"limits {context.limit('max_nmse'):g}, {context.limit('min_errors'):g} standard "
            f"errors (shrunk towards the constant R_samp gains {shrunk:.3f} +- {its_error:.3f})",
            sign="side-input-useless",
            place=place(subject, split, subject.covariance.sample),
            next_step="look whether R_samp belongs to its truth, and how it is made: no mean "
            "removal, symbols drawn anew in every snapshot, E[x x^H] of the same elements",
        )
    context.measure(**measured)


def _report_shift(context: Context, found: Scenes, nmse: Tensor) -> bool:
    """Whether each truth is that of another row, by one shift for all; reported.

    Not where R_samp itself is that of another row, which its snapshots tell.
    """
    X = found.snapshots
    if X is not None and X.ndim == 3 and len(X) == len(found):
        own = X @ X.mH if X.shape[1] == found.sample.shape[1] else None
        if own is None or float(parts_apart(found.sample, own).median()) > OF_ITS_OWN:
            return False
    T, energy = found.truth, _parts(found.truth).square().sum(1)
    tried = {}
    for name, order in shifts(len(found), T.device).items():
        gain, error = mean_and_error_of(
            nmse - (_parts(found.sample[order]) - _parts(T)).square().sum(1) / energy
        )
        if gain > SHIFT_ERRORS * error and gain > float(nmse.mean()) / 2:
            tried[name] = gain
    if not tried:
        return _report_permutation(context, found, nmse)
    best = max(tried, key=lambda name: tried[name])
    before = float(nmse.mean())
    context.problem(
        f"split {found.split}: each R_true is nearer to the R_samp {best} than to its own: NMSE "
        f"{before - tried[best]:.3f} against {before:.3f} over {len(found)} scenes (limit: half "
        f"of it, and {SHIFT_ERRORS:g} standard errors)",
        sign="labels-independent",
        place=place(context.subject, found.split, context.subject.covariance.truth),
        next_step="write and shuffle snapshots and labels by one index; look for two lists that "
        "are shifted apart",
    )
    return True


def _report_permutation(context: Context, found: Scenes, nmse: Tensor) -> bool:
    """Whether truths and R_samp are the same scenes in two orders; reported.

    Then most rows of one find each other mutually with a row elsewhere, at a small distance.
    """
    S, T = _parts(found.sample), _parts(found.truth)
    apart = torch.cdist(T, S).square() / T.square().sum(1, keepdim=True)
    error, near = apart.min(1)
    rows = torch.arange(len(found), device=near.device)
    pairs = (apart.argmin(0)[near] == rows) & (near != rows)
    share, matched = float(pairs.double().mean()), float(error.median())
    if share < PAIRED or matched > float(nmse.median()) / 2 or matched > PAIRED:
        return False
    context.problem(
        f"split {found.split}: {share:.0%} of {len(found)} R_true and R_samp find each other in "
        f"another row of the split, with an NMSE of {matched:.3f} in the median against "
        f"{float(nmse.median()):.3f} in their own (limits {PAIRED:.0%}, half of it): one of them "
        "was permuted by itself",
        sign="labels-independent",
        place=place(context.subject, found.split, context.subject.covariance.truth),
        next_step="shuffle all parts of a scene by one index, or none",
    )
    return True


def shifts(count: int, device: torch.device) -> dict[str, Tensor]:
    """Orders of the scenes by which two lists are easily apart."""
    rows = torch.arange(count, device=device)
    orders = {"at the other end of the batch": rows.flip(0)}
    for shift in range(1, SHIFTS + 1):
        off = f"{shift} row{'s' if shift > 1 else ''}"
        orders[f"{off} below"], orders[f"{off} above"] = rows.roll(-shift), rows.roll(shift)
    return orders


def parts_apart(S: Tensor, G: Tensor) -> Tensor:
    """||S - a G|| / ||S|| with the best real a, [B]."""
    s, g = _parts(S), _parts(G)
    a = (s * g).sum(1) / g.square().sum(1).clamp_min(torch.finfo(g.dtype).tiny)
    apart: Tensor = (s - a[:, None] * g).norm(dim=1) / s.norm(dim=1)
    return apart


def _snapshots(found: Scenes) -> int:
    """Number of snapshots behind R_samp, at least: its rank, where the case gives none."""
    if found.snapshots is not None:
        return found.snapshots.shape[-1]
    values = torch.linalg.eigvalsh(found.sample[:8].to(torch.complex128))
    return int((values > 1e-6 * values[:, -1:]).sum(1).median())


def _shrunk(S: Tensor, T: Tensor, M: Tensor) -> Tensor:
    """NMSE of M + b (S - M); b is fitted to the other half of the scenes."""
    step, start, energy = S - M, M - T, T.square().sum(1)
    against = (step * start).sum(1) / energy
    length = step.square().sum(1) / energy
    b = torch.empty_like(energy)
    for own, other in (
        (slice(0, None, 2), slice(1, None, 2)),
        (slice(1, None, 2), slice(0, None, 2)),
    ):
        b[own] = -against[other].sum() / length[other].sum()
    return start.square().sum(1) / energy + 2 * b * against + b.square() * length


@check(
    "D013",
    "one-convention",
    title="Truth and sample covariance are in one convention",
    what="Compares NMSE(R_samp) with that of conj(R_samp) (for Hermitian matrices the transpose), "
    "of other orders of the elements (reversed, columns before rows of a planar array) and of "
    "all combinations, scene by scene. Where no trace is declared and the two are blended, the "
    "ratio of their traces is looked at, too.",
    why="E[x x^H] and its conjugate are both Hermitian, of the same trace and eigenvalues; the "
    "network has to undo what a line of preprocessing did, and the blend adds two conventions.",
    sources=("B4",),
    signs=("conventions-differ",),
    needs=NEEDS,
    thresholds=(
        Threshold(
            name="max_errors",
            value=5.0,
            unit="standard errors of the paired difference",
            why="chance alone gives it in one of a million runs; the wrong convention in hundreds",
        ),
        Threshold(
            name="max_gain",
            value=0.2,
            unit="share of NMSE(R_samp)",
            why="a difference that matters; the right convention takes most of the error away",
        ),
        Threshold(
            name="max_scale",
            value=2.0,
            unit="ratio of the traces, or its inverse",
            why="chance and noise are far below it, a missing 1 / L or 1 / N far above",
        ),
    ),
)
def one_convention(context: Context) -> None:
    subject, measured = context.subject, {}
    for split in splits(subject):
        found = scenes(subject, split)
        if few(context, found):
            continue
        _compare_scales(context, found)
        S, T = found.sample, found.truth
        energy = _parts(T).square().sum(1)
        imaginary = float((T.imag.flatten(1).square().sum(1) / energy).max())
        if imaginary < PURELY_REAL:
            context.say(f"not judged: the truths of split {split} are real, conjugation is nothing")
        nmse = (_parts(S) - _parts(T)).square().sum(1) / energy
        own = _agreement(S, T)
        gains: dict[str, Tensor] = {}
        for name, order in orders_of(T.shape[-1], T.device).items():
            moved = S if order is None else S[:, order][:, :, order]
            real, imag = _agreement(moved, T)
            if order is not None:
                gains[name] = 2 * (real + imag - sum(own)) / energy
            if imaginary >= PURELY_REAL:
                joined = f"conj(R_samp), {name}" if order is not None else "conj(R_samp)"
                gains[joined] = 2 * (real - imag - sum(own)) / energy
        mean = float(nmse.mean())
        clear = {
            name: gain
            for name, (gain, error) in ((n, mean_and_error_of(g)) for n, g in gains.items())
            if gain > context.limit("max_errors") * error
            and gain > context.limit("max_gain") * mean
        }
        measured[split] = {"nmse": mean, "better": clear}
        if not clear:
            continue
        best = max(clear, key=lambda name: clear[name])
        gain, error = mean_and_error_of(gains[best])
        as_good = [n for n in clear if n != best and clear[n] > gain - 5 * error]
        also = f"; as good: {listed(as_good)}" if as_good else ""
        context.problem(
            f"split {split}: {best} is nearer to the truth than R_samp: NMSE {mean - gain:.3f} "
            f"against {mean:.3f} over {len(found)} scenes, difference {gain:.3f} +- {error:.3f} "
            f"(limit {context.limit('max_errors'):g} standard errors and "
            f"{context.limit('max_gain'):.0%}){also}",
            place=place(subject, split, subject.covariance.sample),
            next_step="compute both as E[x x^H] over the elements in one order: X @ X.mH, not "
            "X.conj() @ X.mT",
        )
    context.measure(**measured)


def _agreement(S: Tensor, T: Tensor) -> tuple[Tensor, Tensor]:
    """<S, T> of the real parts and of the imaginary parts, real [B] each."""
    return (S.real * T.real).sum((1, 2)), (S.imag * T.imag).sum((1, 2))


def orders_of(N: int, device: torch.device) -> dict[str, Tensor | None]:
    """Orders of the elements that are easily confused."""
    number = torch.arange(N, device=device)
    orders: dict[str, Tensor | None] = {"as it is": None, "elements reversed": number.flip(0)}
    side = next((a for a in range(int(N**0.5), 1, -1) if N % a == 0), None)
    for rows_ in {side, N // side} if side is not None else set():
        orders[f"elements of {rows_} x {N // rows_} by columns"] = number.view(
            rows_, N // rows_
        ).T.flatten()
    return orders


def _compare_scales(context: Context, found: Scenes) -> None:
    """One factor between all R_samp and their truths, which the blend doesn't take out."""
    subject, limit = context.subject, context.limit("max_scale")
    declared = subject.case.declared
    if declared is not None and declared.trace is not None:
        return
    blend = subject.covariance.given.blend
    logs = found.scale.double().log()
    factor = float(logs.median().exp())
    if 1 / limit <= factor <= limit or float(logs.std()) > abs(float(logs.median())) / 3:
        return
    if blend is None:
        context.say(f"split {found.split}: the trace of R_samp is {factor:.3g} that of the truth")
        return
    R_samp = found.sample[:4] * found.scale[:4, None, None]
    blended = blend(found.truth[:4], R_samp, 0.5).diagonal(dim1=1, dim2=2).real.sum(1)
    if float((blended / found.truth.shape[-1] - 1).abs().max()) < 0.1:
        return
    context.problem(
        f"split {found.split}: the trace of R_samp is {factor:.3g} times that of the truth in "
        f"every scene (limit {limit:g}), and they are blended as they are",
        place=place(subject, found.split, subject.covariance.sample),
        next_step="scale both in the same way, to trace N, in front of blend and loss",
    )
