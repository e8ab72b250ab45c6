"""A small search, in this process or in workers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna

from ris_diag.search.searchable import load_searchable
from ris_diag.search.space import make_space
from ris_diag.search.storage import Store
from ris_diag.search.study import open_study
from ris_diag.search.training import Conditions
from ris_diag.search.worker import Order

TABLE = {
    "learning_rate": {"low": 1e-3, "high": 1e-1, "log": True},
    "momentum": {"low": 0.0, "high": 0.9},
}


def order(
    folder: Path, target: str = "tests.search.tiny:tiny", *, table: Any = None, url: Any = None,
    pruner: str = "hyperband", **conditions: Any,
) -> Order:  # fmt: skip
    return Order(
        study="small", target=target, space_name="test", space=table or TABLE,
        conditions=replace(Conditions(epochs=4, patience=4), **conditions),
        pruner=pruner, folder=folder, url=url, threads=1,
    )  # fmt: skip


def begun(an_order: Order, count: int) -> tuple[optuna.Study, Store]:
    searchable = load_searchable(an_order.target)
    space = make_space("test", an_order.space, searchable.defaults)
    store = Store(an_order.url, an_order.folder)
    first = {d.name: searchable.defaults[d.name] for d in space.dimensions}
    return open_study(an_order, store, count, {"objective": "one"}, first), store
