"""Families of checks. Imports nothing heavy: the pytest plugin reads this in every run."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family: its name is the pytest marker, its letter begins the IDs of its checks."""

    name: str
    letter: str
    text: str


FAMILIES = (
    Family(
        name="guard",
        letter="G",
        text="wiring: refuses bad values, gives nothing but 0 for the truth, fits its labels",
    ),
    Family(
        name="law",
        letter="M",
        text="what a metric must keep, whatever the matrices: proved or refuted with an example",
    ),
    Family(
        name="data",
        letter="D",
        text="what is trained on: finite, scaled, apart by splits, labels that belong to inputs",
    ),
    Family(
        name="litmus",
        letter="L",
        text="a few optimiser steps of the real loop: does the loss reach the weights and learn",
    ),
    Family(
        name="overfit",
        letter="O",
        text="a short training: memorises, generalises, beats the classical estimators",
    ),
)
