"""Causes that lie in the optimiser."""

from ris_diag.cause import ALWAYS, MOSTLY, OFTEN, RARELY, SOMETIMES, cause

cause(
    "C100",
    "parameters-not-in-optimiser",
    area="optimiser",
    title="The optimiser does not hold the model's parameters",
    looks={
        "none-in-optimiser": MOSTLY,
        "not-in-optimiser": MOSTLY,
        "parameters-move": SOMETIMES,
        "smaller-rate-learns": SOMETIMES,
        "larger-rate-learns": SOMETIMES,
    },
    silent="Gradients are everywhere, and something moves.",
    repair="Build the optimiser of this very model, behind its last change.",
    reference="TrainCheck (Jiang et al., OSDI 2025)",
    elsewhere=RARELY,
)

cause(
    "C101",
    "parameters-held-twice",
    area="optimiser",
    title="Parameters are held twice",
    looks={"held-twice": ALWAYS, "step-without-backward": SOMETIMES, "too-many-steps": OFTEN},
    silent="Two steps look like one larger step.",
    repair="Each parameter in one group of one optimiser.",
    reference="TrainCheck (Jiang et al., OSDI 2025)",
)

cause(
    "C102",
    "learning-rate-zero",
    area="optimiser",
    title="The learning rate is zero",
    looks={"rate-zero": ALWAYS, "parameters-move": OFTEN, "update-too-small": OFTEN},
    silent="A plateau looks like a hard problem.",
    repair="Set the rate in every parameter group.",
    reference="Taxonomy of Real Faults in Deep Learning Systems (Humbatova et al., ICSE 2020)",
    elsewhere=RARELY,
)

cause(
    "C103",
    "learning-rate-too-small",
    area="optimiser",
    title="The learning rate is too small by orders of magnitude",
    looks={
        "larger-rate-learns": ALWAYS,
        "update-too-small": MOSTLY,
        "parameters-move": SOMETIMES,
        "rate-tiny": ALWAYS,
    },
    silent="The loss falls, in the fourth digit.",
    repair="Raise the rate tenfold until it diverges, then a third of it.",
    reference="DeepCrime (Humbatova et al., ISSTA 2021), operator HLR",
    settles="raise the learning rate tenfold",
    elsewhere=RARELY,
)

cause(
    "C104",
    "learning-rate-too-large",
    area="optimiser",
    title="The learning rate is too large by orders of magnitude",
    looks={
        "smaller-rate-learns": MOSTLY,
        "update-too-large": MOSTLY,
        "loss-explodes": MOSTLY,
        "litmus-not-finite": SOMETIMES,
        "values-not-finite": SOMETIMES,
        "loss-not-finite": SOMETIMES,
        "watched-loss-climbs": OFTEN,
    },
    silent="The loss jumps about a level that looks like a plateau.",
    repair="Lower the rate tenfold until it learns.",
    reference="Taxonomy of Real Faults in Deep Learning Systems (Humbatova et al., ICSE 2020)",
    settles="lower the learning rate tenfold",
    elsewhere=RARELY,
)

cause(
    "C105",
    "weight-decay-too-strong",
    area="optimiser",
    title="Weight decay pulls harder than the gradient",
    looks={
        "decay-too-large": ALWAYS,
        "update-too-large": OFTEN,
        "setting-odd": OFTEN,
        "watched-loss-climbs": SOMETIMES,
    },
    silent="The loss settles at that of small weights.",
    repair="Lower weight_decay: rate times decay is the share of a weight lost in a step.",
    reference="DeepCrime (Humbatova et al., ISSTA 2021), operator RAW",
)

cause(
    "C106",
    "optimiser-setting-odd",
    area="optimiser",
    title="A setting of the optimiser is far from any useful one",
    looks={
        "setting-odd": ALWAYS,
        "larger-rate-learns": OFTEN,
        "update-too-small": OFTEN,
        "smaller-rate-learns": SOMETIMES,
    },
    silent="The optimiser takes every number.",
    repair="Look at betas, eps, momentum and dampening.",
    reference="DeepCrime (Humbatova et al., ISSTA 2021), operator OCH",
)

cause(
    "C107",
    "optimiser-does-nothing",
    area="optimiser",
    title="The optimiser steps, and the weights stay",
    looks={"parameters-move": ALWAYS, "update-too-small": OFTEN},
    silent="step() returns.",
    repair="Look at the rates of every group, at the optimiser's step(), and at half-precision "
    "weights.",
    reference="TrainCheck (Jiang et al., OSDI 2025)",
    elsewhere=RARELY,
)
