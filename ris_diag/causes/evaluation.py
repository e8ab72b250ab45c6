"""Causes that lie in the evaluation."""

from ris_diag.cause import ALWAYS, SOMETIMES, cause

cause(
    "C150",
    "metric-of-other-weights",
    area="evaluation",
    title="The metric does not see the current weights",
    looks={"metric-ignores-weights": ALWAYS},
    silent="It is a number, and it changes with the data.",
    repair="Evaluate the model that is trained, not a copy or a checkpoint.",
    reference="the history behind the project (docs/design.md)",
)

cause(
    "C151",
    "metric-random",
    area="evaluation",
    title="The metric gives another number the second time",
    looks={"metric-random": ALWAYS},
    silent="Each number is plausible.",
    repair="Fix the batches and the mode of the validation.",
    reference="the history behind the project (docs/design.md)",
)

cause(
    "C152",
    "metric-depends-on-order",
    area="evaluation",
    title="The metric depends on the order of the samples",
    looks={"metric-depends-on-order": ALWAYS},
    silent="The loader's order is always the same.",
    repair="Average over all samples; look for a batch that is dropped or counted alone.",
    reference="the history behind the project (docs/design.md)",
)

cause(
    "C153",
    "metric-in-train-mode",
    area="evaluation",
    title="The metric runs the model in train mode",
    looks={"metric-in-train-mode": ALWAYS},
    silent="It is only a little worse, and noisy.",
    repair="model.eval() in front, the old mode behind.",
    reference="Karpathy, A Recipe for Training Neural Networks (2019)",
)

cause(
    "C154",
    "metric-changes-model",
    area="evaluation",
    title="The metric changes the model",
    looks={"metric-changes-model": ALWAYS},
    silent="Validation comes behind the training that it spoils.",
    repair="no_grad and eval mode; no step, no load_state_dict.",
    reference="Silent Bugs in Deep Learning Frameworks (Tambon et al., 2023)",
)

cause(
    "C155",
    "metric-wrong-for-known-error",
    area="evaluation",
    title="The metric gives the wrong answer for a known error",
    looks={
        "metric-wrong-for-known-error": ALWAYS,
        "metric-ignores-weights": SOMETIMES,
        "metric-depends-on-order": SOMETIMES,
    },
    silent="A wrong metric falls, too.",
    repair="Compute it for the truth, and for the truth with a known error, by hand.",
    reference="the history behind the project (docs/design.md)",
)

cause(
    "C156",
    "validates-on-training",
    area="evaluation",
    title="The validation that is reported is one of the training batches",
    looks={"validates-on-training": ALWAYS},
    silent="It falls as well as the training loss.",
    repair="Hand the validation batches to the function that validates.",
    reference="Taxonomy of Real Faults in Deep Learning Systems (Humbatova et al., ICSE 2020)",
)
