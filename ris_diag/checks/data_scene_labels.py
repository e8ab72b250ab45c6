"""Whether the labels of a scene agree with each other: B4."""

import torch
from torch import Tensor

from ris_diag.check import Threshold, check
from ris_diag.context import Context
from ris_diag.scenes import Offenders, pieces, place, splits

MOST = 256  # eigenvalues of so many matrices of a piece
EXACT = 1e-3  # of the largest eigenvalue: truths that are K signals over a floor
FEWER = 1e-4


@check(
    "D017",
    "labels-agree",
    title="The labels of a scene agree: number of sources, positions, eigenvalues of the truth",
    what="Looks at K of every sample that is drawn or stored: a whole number from 1 to the most "
    "that positions have room for, as many positions that aren't zero, and as many eigenvalues "
    "of R_true above its floor.",
    why="Labels of one scene are written by different lines into different arrays; one index that "
    "runs apart gives each of them a plausible neighbour.",
    sources=("B4",),
    signs=("labels-disagree",),
    needs=("batch", "covariance.truth"),
    thresholds=(
        Threshold(
            name="max_beyond",
            value=0.02,
            unit="eigenvalue K + 1 above the smallest, of the largest",
            why="exact truths have 1e-6; a further source at the same power has 0.1 and more",
        ),
        Threshold(
            name="max_share_fewer",
            value=0.2,
            unit="of the scenes with fewer signals than K",
            why="two sources in one direction are one, in about one scene of a thousand",
        ),
    ),
)
def labels_agree(context: Context) -> None:
    subject = context.subject
    given = subject.covariance.given
    if given.sources is None:
        context.say("not judged: Case.covariance.sources (K of each scene) is not given")
        return
    for split in splits(subject):
        odd, unlike = Offenders(), Offenders()
        counted: list[tuple[str, Tensor, Tensor]] = []
        for name, batch in pieces(subject, split):
            R = subject.covariance.truth(batch).detach()
            K = given.sources(batch).detach().double().flatten()
            most = R.shape[-1]
            if given.positions is not None:
                positions = given.positions(batch).detach()
                most = positions.shape[-1]
                unlike.add(name, (positions != 0).any(1).sum(1) != K)
            wrong = ~((K >= 1) & (most >= K) & (K.round() == K))
            odd.add(name, wrong)
            counted.append((name, K, _eigenvalues(R, wrong)))
        found = {
            "K is not a whole number from 1 to the most that there is room for": odd,
            "K is not the number of positions that aren't zero": unlike,
            **_against_eigenvalues(context, split, counted),
        }
        for text, offenders in found.items():
            if not len(offenders):
                continue
            stored = subject.case.offers("stored")
            context.problem(
                f"split {split}: {text} in {offenders}",
                place=offenders.first if stored else place(subject, split, given.sources),
                next_step="look at the index by which each label is written, and at what was "
                "shuffled or filtered without the others",
            )
        context.measure(**{split: sum(len(K) for _, K, _ in counted)})


def _eigenvalues(R: Tensor, wrong: Tensor) -> Tensor:
    """Eigenvalues of the matrices, falling, over the largest: real [n, N].

    NaN where they are not computed: with a wrong K, not finite, or left out of a large piece.
    """
    values = torch.full(R.shape[:2], torch.nan, dtype=torch.float64, device=R.device)
    wanted = ~wrong & torch.isfinite(R.abs()).flatten(1).all(1)
    wanted &= torch.arange(len(R), device=R.device) % (len(R) // MOST + 1) == 0
    if wanted.any():
        falling = torch.linalg.eigvalsh(R[wanted]).flip(1).double()
        values[wanted] = falling / falling[:, :1]
    return values


def _against_eigenvalues(
    context: Context, split: str, counted: list[tuple[str, Tensor, Tensor]]
) -> dict[str, Offenders]:
    """What is wrong with K against the eigenvalues of the truth."""
    limit = context.limit("max_beyond")
    more, fewer = Offenders(), Offenders()
    beyond_all: list[Tensor] = []
    for name, K, values in counted:
        judged = torch.isfinite(values[:, 0]) & (values.shape[1] > K)
        index = K.nan_to_num(1).long().clamp(1, values.shape[1] - 1)[:, None]
        floor = values[:, -1]
        beyond = values.gather(1, index)[:, 0] - floor
        last = values.gather(1, index - 1)[:, 0] - floor
        beyond_all.append(beyond[judged])
        more.add(name, judged & (beyond > limit))
        fewer.add(name, judged & (last < FEWER))
    beyond = torch.cat(beyond_all)
    if not len(beyond) or not float(beyond.median()) < EXACT:
        context.say(
            f"split {split}: K against eigenvalues not judged: the truths are not K signals over "
            "an even floor in most scenes"
        )
        return {}
    found = {"R_true has more signals than K": more}
    if len(fewer) > context.limit("max_share_fewer") * len(beyond):
        found["R_true has fewer signals than K"] = fewer
    return found
