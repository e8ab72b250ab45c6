"""Causes that lie in the configuration."""

from ris_diag.cause import ALWAYS, MOSTLY, OFTEN, SOMETIMES, cause

cause(
    "C001",
    "loss-weight-not-in-effect",
    area="configuration",
    title="A declared loss weight is not in effect",
    looks={"weight-not-in-effect": MOSTLY, "total-not-the-sum": MOSTLY, "weight-zero": MOSTLY},
    silent="The loss falls on the terms that are left, and the log shows every term's value.",
    repair="Pass the configured weight to the place where the terms are added, on every path.",
    reference="the history behind the project (docs/design.md)",
)

cause(
    "C002",
    "loss-weight-out-of-range",
    area="configuration",
    title="A loss weight in effect is zero, negative or enormous",
    looks={"weights-in-range": ALWAYS, "total-not-the-sum": OFTEN, "weight-not-in-effect": OFTEN},
    silent="A weight scales the gradient; an adaptive optimiser hides its size.",
    repair="Correct the weight in the configuration, and refuse such values where the loss is "
    "built.",
    reference="the history behind the project (docs/design.md)",
)

cause(
    "C003",
    "learning-rate-not-as-declared",
    area="configuration",
    title="The learning rate in effect is not the declared one",
    looks={"rate-not-declared": ALWAYS},
    silent="Another rate trains another experiment, and trains it well.",
    repair="Hand the configured rate to the optimiser; look for a second optimiser or a "
    "scheduler that overwrites it.",
    reference="the history behind the project (docs/design.md)",
)

cause(
    "C004",
    "optimiser-setting-not-as-declared",
    area="configuration",
    title="A setting of the optimiser is not the declared one",
    looks={"setting-not-declared": ALWAYS},
    silent="The optimiser falls back to its default without a word.",
    repair="Pass the setting by name where the optimiser is built.",
    reference="Taxonomy of Real Faults in Deep Learning Systems (Humbatova et al., ICSE 2020)",
)

cause(
    "C005",
    "frozen-not-as-declared",
    area="configuration",
    title="Parameters are frozen, or move, against the declaration",
    looks={"frozen-undeclared": MOSTLY, "frozen-drifts": OFTEN, "frozen-pattern-idle": SOMETIMES},
    silent="The rest of the network learns, and the loss falls.",
    repair="Set requires_grad_ on exactly the declared parameters, behind the last place that "
    "changes it.",
    reference="Taxonomy of Real Faults in Deep Learning Systems (Humbatova et al., ICSE 2020)",
)

cause(
    "C006",
    "ties-not-as-declared",
    area="configuration",
    title="Weights that should be one tensor are two, or two are one",
    looks={
        "tie-not-made": MOSTLY,
        "tie-cut": OFTEN,
        "tie-undeclared": OFTEN,
        "parameters-are-registered": OFTEN,
        "not-in-optimiser": OFTEN,
        "no-gradient": OFTEN,
    },
    silent="Both copies train; only the number of parameters and the checkpoint tell.",
    repair="Assign the Parameter itself, and load or re-initialise before tying.",
    reference="Silent Bugs in Deep Learning Frameworks (Tambon et al., 2023)",
)

cause(
    "C007",
    "accumulation-not-as-declared",
    area="configuration",
    title="Gradients are not accumulated as declared",
    looks={
        "too-many-steps": MOSTLY,
        "cleared-while-accumulating": MOSTLY,
        "steps-missing": SOMETIMES,
    },
    silent="A smaller effective batch still learns, only noisier.",
    repair="Step and clear once for the declared number of backward passes, and divide the loss "
    "by it.",
    reference="TrainCheck (Jiang et al., OSDI 2025)",
)

cause(
    "C008",
    "schedule-not-as-declared",
    area="configuration",
    title="The blend weight leaves its declared schedule",
    looks={
        "beta-off-schedule": MOSTLY,
        "beta-off-on-a-path": MOSTLY,
        "inference-schedule-differs": OFTEN,
    },
    silent="The walk of beta moves the loss by itself, whichever walk it is.",
    repair="Compute beta from the epoch, counted from 1, in one function that training and "
    "inference share.",
    reference="the history behind the project (docs/design.md)",
)

cause(
    "C009",
    "clipping-not-as-declared",
    area="configuration",
    title="Gradients are not clipped as declared",
    looks={"clip-not-declared": ALWAYS},
    silent="Clipping is invisible until a gradient explodes, or until it takes nearly everything.",
    repair="Call clip_grad_norm_ with the configured limit between backward() and step().",
    reference="DeepCrime (Humbatova et al., ISSTA 2021), operator OCG",
)

cause(
    "C010",
    "batch-size-not-as-declared",
    area="configuration",
    title="The loader serves batches of another size than declared",
    looks={"batch-size-not-declared": ALWAYS},
    silent="Any batch size trains; the noise and the number of updates are others.",
    repair="Pass the configured batch size to the loader.",
    reference="DeepCrime (Humbatova et al., ISSTA 2021), operator HBS",
)

cause(
    "C011",
    "guard-missing",
    area="configuration",
    title="Inadmissible values are accepted where they should be refused",
    looks={
        "bad-weights-refused": ALWAYS,
        "blend-refuses-bad-input": ALWAYS,
        "guard-lets-detached-through": ALWAYS,
    },
    silent="A guard matters on the day on which something else is wrong.",
    repair="Raise ValueError, TypeError or RuntimeError where the value enters; an assert is "
    "gone under python -O.",
    reference="the history behind the project (docs/design.md)",
)

cause(
    "C012",
    "log-lines-missing",
    area="configuration",
    title="The log does not show what a person needs once a run",
    looks={"debug-lines-logged": ALWAYS},
    silent="Nobody misses a line that was never there.",
    repair="Log weights, terms, gradient norms and the schedule at INFO.",
    reference="the history behind the project (docs/design.md)",
)
