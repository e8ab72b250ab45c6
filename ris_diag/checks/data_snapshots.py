"""Whether snapshots have the rank, the coherence and the moments that their label says: B4."""

import math

import torch
from torch import Tensor

from ris_diag.check import Threshold, check
from ris_diag.checks.data_covariance import NEEDS, few, orders_of, parts_apart, shifts
from ris_diag.context import Context
from ris_diag.scenes import (
    FEWEST,
    Scenes,
    Spectrum,
    mean_and_error_of,
    place,
    scenes,
    spectrum,
    splits,
)

OTHER = "side-input-not-its-snapshots"
ZERO = 3e-6  # of the largest singular value: rounding of complex64 is a tenth of it
CENTRED = 1e-3


@check(
    "D015",
    "snapshots-are-coherent",
    title="R_samp is the snapshots' own, and they have the rank that the label says",
    what="Compares R_samp with X X^H / L up to a scale, the rank of X with that of the truth, and, "
    "in scenes with two or more strong sources, how many independent signals the snapshots hold "
    "with what Gaussian symbols drawn anew in every snapshot would show.",
    why="Symbols held constant over the snapshots make data of rank 1 under a truth of rank K: a "
    "recorded real defect, and nothing in a single scene looks wrong.",
    sources=("B4",),
    signs=("snapshots-incoherent", "side-input-not-its-snapshots"),
    needs=(*NEEDS, "covariance.snapshots"),
    thresholds=(
        Threshold(
            name="max_difference",
            value=1e-2,
            unit="||R_samp - a X X^H|| / ||R_samp||",
            why="half precision rounds at 1e-3; another matrix shows at 0.1 and above",
        ),
        Threshold(
            name="min_independent",
            value=0.7,
            unit="of the independent signals of Gaussian symbols, mean over scenes",
            why="symbols held constant have 0.55 for two sources and less for more",
        ),
        Threshold(
            name="min_errors",
            value=5.0,
            unit="standard errors",
            why="chance alone gives it in one of a million runs",
        ),
    ),
)
def snapshots_are_coherent(context: Context) -> None:
    subject, measured = context.subject, {}
    for split in splits(subject):
        found = scenes(subject, split)
        X = found.snapshots
        if few(context, found) or X is None:
            continue
        spot = place(subject, split, subject.covariance.snapshots)
        N, B = found.truth.shape[-1], len(found)
        if X.ndim != 3 or X.shape[1] != N:
            context.problem(
                f"split {split}: snapshots are {list(X.shape)}, expected [{B}, {N}, L]",
                sign="snapshots-incoherent",
                place=spot,
                next_step="give the snapshots at the elements, elements before snapshots",
            )
            continue
        _compare_with_sample(context, found, X)
        held = X.abs().amax(1) > 0  # columns of zeros fill up scenes of fewer snapshots
        centred = X.sum(2).norm(dim=1) < CENTRED * X.flatten(1).norm(dim=1)
        singular = torch.linalg.svdvals(X.to(torch.complex128))
        rank = (singular > ZERO * singular[:, :1]).sum(1)
        expected = held.sum(1).clamp(max=N).minimum(_rank(spectrum(subject, split)))
        low = rank < expected
        if centred.all():
            context.problem(
                f"split {split}: the snapshots of every scene sum to zero: their mean was removed",
                sign="snapshots-incoherent",
                place=spot,
                next_step="don't subtract the mean over the snapshots: where symbols repeat it is "
                "the signal",
            )
        elif low.any():
            context.problem(
                f"split {split}: the rank of the snapshots is {int(rank[low].min())} instead of "
                f"{int(expected[low].max())} = min(L, rank of the truth) in {counted(low)}",
                sign="snapshots-incoherent",
                place=spot,
                next_step="draw symbols and noise anew in every snapshot; look for equal columns",
            )
        measured[split] = _independent(context, found, X, held.sum(1), spectrum(subject, split))
    context.measure(independent=measured)


def counted(offending: Tensor) -> str:
    """`2 of 64 scenes`."""
    return f"{int(offending.sum())} of {len(offending)} scenes"


def _rank(spectrum: Spectrum) -> Tensor:
    return (spectrum.values > 1e-5 * spectrum.values[:, :1]).sum(1)


def _compare_with_sample(context: Context, found: Scenes, X: Tensor) -> None:
    subject, limit = context.subject, context.limit("max_difference")
    S = found.sample
    off = parts_apart(S, X @ X.mH) > limit
    off &= (S - S.mH).flatten(1).norm(dim=1) < limit * S.flatten(1).norm(dim=1)  # else D014's
    if not off.any():
        return
    x = X[off]
    # The mean is a matter of the snapshots, the order of the elements one of the convention.
    centred = {"of centred snapshots": x - x.mean(2, keepdim=True)}
    orders = {n: o for n, o in orders_of(X.shape[1], X.device).items() if o is not None}
    other = {**centred, "the conjugate": x.conj()}
    other |= {f"of {name}": x[:, order] for name, order in orders.items()}
    fits = [name for name, y in other.items() if (parts_apart(S[off], y @ y.mH) <= limit).all()]
    if not fits and bool(off.all()):
        moved = shifts(len(X), X.device).items()
        fits = [
            f"that {name}"
            for name, order in moved
            if float(parts_apart(S, X[order] @ X[order].mH).median()) <= limit
        ]
    G = x @ x.mH
    if not fits and (parts_apart(S[off], (G + G.conj().flip(1, 2)) / 2) <= limit).all():
        context.say(f"split {found.split}: R_samp is averaged forward and backward")
        return
    if not fits and (parts_apart(_free_of_diagonal(S[off]), _free_of_diagonal(G)) <= limit).all():
        context.say(f"split {found.split}: R_samp is X X^H / L with a changed diagonal")
        return
    worst = float(parts_apart(S[off], G).max())
    context.problem(
        f"split {found.split}: R_samp is not X X^H / L of its snapshots"
        + (f" but {fits[0]}" if fits else "")
        + f": ||R_samp - a X X^H|| / ||R_samp|| up to {worst:.2g} "
        f"(limit {limit:g}) in {counted(off)}",
        sign="snapshots-incoherent" if fits and fits[0] in centred else OTHER,
        place=place(subject, found.split, subject.covariance.sample),
        next_step="R_samp = X @ X.mH / L, without mean removal, of the scene's own snapshots",
    )


def _free_of_diagonal(R: Tensor) -> Tensor:
    return R - torch.diag_embed(R.diagonal(dim1=1, dim2=2))


def _independent(
    context: Context, found: Scenes, X: Tensor, L: Tensor, spectrum: Spectrum
) -> dict[str, float]:
    """Independent signals in the snapshots against those of Gaussian symbols, in strong scenes."""
    N = X.shape[1]
    K = spectrum.signals
    usable = (K >= 2) & (L.clamp(max=N) // 2 >= K)
    if int(usable.sum()) < FEWEST:
        context.say(
            f"independent signals not judged: split {found.split} has {int(usable.sum())} scenes "
            f"with two or more strong sources and twice as many snapshots, {FEWEST} are needed"
        )
        return {}
    K, L = K[usable].double(), L[usable].double()
    most = int(K.max())
    strong = torch.arange(most, device=X.device) < K[:, None]
    whitened = spectrum.vectors[usable, :, :most].mH @ X[usable]
    whitened = whitened / spectrum.values[usable, :most].sqrt()[..., None] * strong[..., None]
    P = whitened @ whitened.mH
    trace = P.diagonal(dim1=1, dim2=2).real.sum(1).double()
    independent = trace.square() / P.abs().double().square().sum((1, 2))
    share = independent * (L + K) / (K * L + 1)  # of the ratio of the moments of a Wishart matrix
    mean, error = mean_and_error_of(share)
    if mean < context.limit("min_independent") and 1 - mean > context.limit("min_errors") * error:
        context.problem(
            f"split {found.split}: the snapshots of {len(K)} scenes with {K.mean():.1f} strong "
            f"sources hold {float(independent.mean()):.2f} independent signals, {mean:.2f} +- "
            f"{error:.2f} of what symbols drawn anew in every snapshot give (limit "
            f"{context.limit('min_independent'):g}): the symbols are held constant or coherent",
            sign="snapshots-incoherent",
            place=place(context.subject, found.split, context.subject.covariance.snapshots),
            next_step="draw the symbols anew in every snapshot, each source its own",
        )
    return {"scenes": len(K), "share": mean, "error": error}


@check(
    "D016",
    "moments-agree",
    title="The second moments of the snapshots are those of the label",
    what="Whitens the snapshots with their truth: averaged over scenes, each freed of one scale "
    "(both are normalised in many a simulator), W W^H / L is the identity, E[x^H R_true^-1 x] is "
    "shared evenly by signal and noise, and the noise is circular, E[w w^T] = 0.",
    why="Noise of twice the power, an SNR taken as amplitude, a factor of sqrt(2) between real "
    "and imaginary part: each scene is plausible, and the label is that of other scenes.",
    sources=("B4",),
    signs=("moments-off",),
    needs=(*NEEDS, "covariance.snapshots"),
    thresholds=(
        Threshold(
            name="max_errors",
            value=6.0,
            unit="standard errors of a whitened entry",
            why="exp(-36) for each of N^2 entries: less than one false alarm in a billion",
        ),
        Threshold(
            name="max_deviation",
            value=0.15,
            unit="of a whitened entry, of the share of signal or noise",
            why="a factor of sqrt(2) in an amplitude shows as 0.4 or more",
        ),
        Threshold(
            name="max_noncircular",
            value=0.5,
            unit="|E[w w^T]|^2 a dimension of the noise, 0 if circular and 1 if real",
            why="in the middle; chance is below 0.1 in the mean over the scenes",
        ),
    ),
)
def moments_agree(context: Context) -> None:
    subject, measured = context.subject, {}
    for split in splits(subject):
        found = scenes(subject, split)
        X = found.snapshots
        if few(context, found) or X is None:
            continue
        if X.ndim != 3 or X.shape[:2] != found.truth.shape[:2]:
            context.say(f"not judged: snapshots {list(X.shape)} don't fit the truth, see D015")
            continue
        spectra = spectrum(subject, split)
        usable = spectra.full & (X.abs().amax((1, 2)) > 0)
        if int(usable.sum()) < FEWEST:
            context.say(
                f"not judged: the truth has an inverse in {int(usable.sum())} scenes of split "
                f"{split}, {FEWEST} are needed; a label without noise is no moment of noisy data"
            )
            continue
        off = [
            *_whitened(context, found.truth[usable], X[usable]),
            *_shares(context, spectra, X, usable),
        ]
        measured[split] = int(usable.sum())
        if off:
            context.problem(
                f"split {split}, {int(usable.sum())} scenes: {'; '.join(off)}",
                place=place(subject, split, subject.covariance.snapshots),
                next_step="give signal and noise the powers of the label: 10^(-SNR/10) is a power, "
                "its root an amplitude; (re + j im) / sqrt(2) of independent parts",
            )
    context.measure(scenes=measured)


def _whitened(context: Context, truth: Tensor, X: Tensor) -> list[str]:
    """What is wrong with the mean of W W^H / L, W the whitened snapshots."""
    B, N, L = X.shape
    W = torch.linalg.solve_triangular(torch.linalg.cholesky(truth), X, upper=False)
    scale = W.abs().square().mean((1, 2))
    W = W / scale.sqrt()[:, None, None]
    joined = W.transpose(0, 1).reshape(N, B * L)
    M = joined @ joined.mH / (B * L)
    # Snapshots that depend on each other vary more than 1 / L a scene.
    within = ((W.mH @ W).abs().square().sum((1, 2)) / (N * N * L * L)).mean() - 1 / N
    error = math.sqrt(max(1 / L, float(within)) / B)
    deviation = (M - torch.eye(N, dtype=M.dtype, device=M.device)).abs()
    worst = float(deviation.max())
    limit = max(context.limit("max_deviation"), context.limit("max_errors") * error)
    context.measure(whitened_deviation=worst, whitened_error=error)
    if worst <= limit:
        return []
    row, column = divmod(int(deviation.argmax()), N)
    return [
        f"the whitened covariance, averaged, is {abs(complex(M[row, column])):.2f} instead of "
        f"{int(row == column)} at ({row}, {column}) (off by {worst:.2f}, limit {limit:.2f})"
    ]


def _shares(context: Context, spectra: Spectrum, X: Tensor, usable: Tensor) -> list[str]:
    """What is wrong with the energies of signal and noise, and with the noise's circularity."""
    values, floor, X = spectra.values[usable], spectra.floor[usable], X[usable]
    L = X.shape[2]
    Z = (spectra.vectors[usable].mH @ X) / values.sqrt()[..., None]
    energy = Z.abs().square().mean(2)
    energy = energy / energy.mean(1, keepdim=True)
    noise = values < 2 * floor[:, None]
    signal = values > 10 * floor[:, None]
    off = []
    for name, mask in (("strong signals have", signal), ("the noise has", noise)):
        some = mask.any(1) & ~mask.all(1)
        if int(some.sum()) < FEWEST:
            continue
        share = (energy * mask).sum(1)[some] / mask.sum(1)[some]
        mean, error = mean_and_error_of(share)
        limit = max(context.limit("max_deviation"), 5 * error)
        if abs(mean - 1) > limit:
            off.append(
                f"{name} {mean:.2f} +- {error:.2f} times their share of E[x^H R_true^-1 x] "
                f"(expected 1, limit {limit:.2f})"
            )
    m = noise.sum(1).double()
    if float(X.imag.abs().max()) == 0 or int((m >= 2).sum()) < FEWEST:
        return off
    noise_part = Z * noise[..., None] / energy.mean(1).sqrt()[:, None, None]
    power = noise_part.abs().square().sum((1, 2)).double() / (m * L).clamp_min(1)
    pseudo = (noise_part @ noise_part.mT / L).abs().double().square().sum((1, 2)) / power.square()
    within = (noise_part @ noise_part.mH / L).abs().double().square().sum((1, 2)) / power.square()
    # 1 / L, more where snapshots depend on each other.
    spread = max(0.0, float((within - m)[m >= 2].mean() / m.square()[m >= 2].mean()))
    excess = ((pseudo - (m.square() + m) * spread) / m.clamp_min(1))[m >= 2]
    mean, error = mean_and_error_of(excess)
    limit = max(context.limit("max_noncircular"), 6 * error)
    if mean > limit:
        off.append(
            f"the noise is not circular: |E[w w^T]|^2 is {mean:.2f} +- {error:.2f} a dimension "
            f"(0 if circular, 1 if real and imaginary part are one number; limit {limit:.2f})"
        )
    return off
