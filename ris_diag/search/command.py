"""`ris-diag hpo`. Nothing heavy at module level: every other command imports this file."""

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ris_diag.commands import EXTRA_ARGS, device_name, target_of
from ris_diag.errors import SearchError

if TYPE_CHECKING:
    from ris_diag.search.searchable import Searchable
    from ris_diag.search.space import Space
    from ris_diag.search.worker import Order

NEEDS = ("optuna", "sqlalchemy", "psycopg")
PRUNERS = ("hyperband", "successive-halving")


@click.command(
    context_settings={
        "token_normalize_func": lambda name: name.replace("_", "-"),
        **EXTRA_ARGS,
    },
)
@click.option("--case", metavar="PKG.MOD:FACTORY", help="Its parameters are searched.")
@click.option("--n-trials", default=24, show_default=True, type=click.IntRange(min=1))
@click.option("--epochs-per-trial", default=20, show_default=True, type=click.IntRange(min=1))
@click.option("--space", default="wide", show_default=True, help="spaces/NAME.toml, or a file.")
@click.option(
    "--early-stop-patience", default=6, show_default=True, type=click.IntRange(min=1),
    help="Epochs without a better metric.",
)  # fmt: skip
@click.option("--pruner", default=PRUNERS[0], show_default=True, type=click.Choice(PRUNERS))
@click.option(
    "--workers", default=1, show_default=True, type=click.IntRange(min=1),
    help="Processes on this machine, one a GPU.",
)  # fmt: skip
@click.option(
    "--storage", metavar="postgresql://...",
    help="For several machines; default: a journal in --folder. Give the password by PGPASSWORD.",
)  # fmt: skip
@click.option("--study", help="Its name; default: the case and the space.")
@click.option(
    "--folder", default="ris-diag-hpo", show_default=True,
    type=click.Path(file_okay=False, path_type=Path), help="Journal, checkpoints, best.json.",
)  # fmt: skip
@click.option(
    "--receipt", type=click.Path(dir_okay=False, path_type=Path),
    help="What `ris-diag gate` wrote; default: .ris-diag/receipt.json of the project.",
)  # fmt: skip
@click.option(
    "--signers", type=click.Path(path_type=Path), metavar="FILE",
    help="As for `ris-diag verify`: one of them must have signed the receipt.",
)  # fmt: skip
@click.option("--without-gate", metavar="REASON", help="Search code that the gate didn't pass.")
@click.option("--device", help="cpu, cuda or cuda:N; default: cpu.")
@click.option("--gpu", is_flag=True, help="Short for --device cuda.")
@click.option("--seed", default=0, show_default=True, help="Of data, trials and sampler.")
def hpo(
    case: str | None,
    n_trials: int,
    epochs_per_trial: int,
    space: str,
    early_stop_patience: int,
    pruner: str,
    workers: int,
    storage: str | None,
    study: str | None,
    folder: Path,
    receipt: Path | None,
    signers: Path | None,
    without_gate: str | None,
    device: str | None,
    gpu: bool,
    seed: int,
) -> None:
    """Search for hyper-parameters behind the gate; the same command goes on where it ended."""
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise SearchError("a search needs: pip install 'ris-diag[hpo]'")
    from ris_diag.cuda import usable_device
    from ris_diag.search.searchable import load_searchable
    from ris_diag.search.space import load_space
    from ris_diag.search.training import Conditions
    from ris_diag.search.worker import Order

    target = target_of(case)
    device = device_name(device, gpu)
    usable_device(device)
    searchable = load_searchable(target)
    dimensions = load_space(space, searchable)
    _admit(receipt, signers, target, device, without_gate)
    order = Order(
        study=study or f"{searchable.case({}).name}-{Path(space).stem}",
        target=target,
        space_name=space,
        space=dimensions.table(),
        conditions=Conditions(
            epochs=epochs_per_trial, patience=early_stop_patience, seed=seed, device=device
        ),
        pruner=pruner,
        folder=folder,
        url=storage,
        threads=max(1, (os.cpu_count() or 1) // workers),
    )
    _search(order, searchable, dimensions, n_trials, workers, without_gate)


def _admit(
    receipt: Path | None, signers: Path | None, target: str, device: str, without_gate: str | None
) -> None:
    """Refuse what the gate didn't pass.

    Raises:
        SearchError: the receipt isn't valid for this case, or the reason is empty.
        SignatureError: signatures can't be read here.
    """
    from ris_diag import receipt as receipts

    if without_gate is not None:
        if not without_gate.strip():
            raise SearchError("--without-gate needs a reason; it stands in the study")
        click.secho(
            f"WITHOUT GATE: {without_gate}. Nothing says that this code can learn; the study "
            "keeps the reason.", fg="red", bold=True, err=True,
        )  # fmt: skip
        return
    path = receipt or receipts.default_receipt()
    problems = receipts.problems_of(path, target=target, device=device, signers=signers)
    if problems:
        command = "ris-diag gate" + (f" --receipt {receipt}" if receipt else "")
        raise SearchError(
            f"no valid receipt for {target}: {'; '.join(problems)}. Run `{command}` first, or give "
            "--without-gate REASON"
        )


def _search(
    order: "Order", searchable: "Searchable", space: "Space", count: int, workers: int,
    without_gate: str | None,
) -> None:  # fmt: skip
    from rich.console import Console

    from ris_diag import fingerprint
    from ris_diag.search import table, winner
    from ris_diag.search.identity import identity_of
    from ris_diag.search.probe import broken_corners, refuse_dimensions_without_effect
    from ris_diag.search.storage import Store
    from ris_diag.search.study import judged, open_study, run_workers

    console, conditions = Console(soft_wrap=True, highlight=False), order.conditions

    def say(line: str, **style: Any) -> None:
        console.print(line, markup=False, **style)

    store = Store(order.url, order.folder)
    known = fingerprint.fingerprint(order.target)
    code = {part: known[part] for part in fingerprint.COMPARED}
    identity = identity_of(searchable, space, conditions, code)
    refuse_dimensions_without_effect(searchable, space, conditions.seed)
    broken = broken_corners(searchable, space, conditions.device, conditions.seed)
    if broken:
        raise SearchError("; ".join(map(str, broken)) + ". Make the space smaller, or mend it")
    say(f"study {order.study!r} in {store.shown}: {count} trials, {conditions.epochs} epochs each")
    for name, text in space.described().items():
        say(f"  {name}: {text}")
    first = {d.name: searchable.defaults[d.name] for d in space.dimensions}
    study = open_study(order, store, count, identity, first, without_gate)
    with table.shown(console, conditions.epochs) as watch:
        run_workers(order, study, workers, watch)
    ended = judged(study.get_trials(deepcopy=False))
    say(", ".join(f"{number} {state.lower()}" for state, number in ended.items() if number))
    with store.mutex("winner"):
        best = winner.best_trial(study)
        path = winner.keep(best, order, searchable, store)
        say(f"best: trial {best.number}, metric {best.value!r}; {path}", style="bold")
        for line in table.parameter_lines(best.params, searchable.defaults):
            say(line)
        comparison = winner.compare(best, order, searchable, workers)
    for line in table.comparison_lines(comparison):
        say(line)
    study.set_user_attr("comparison", comparison.to_json())
    store.close()
