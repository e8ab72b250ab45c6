"""Causes that lie in the loss."""

from ris_diag.cause import ALWAYS, MOSTLY, OFTEN, RARELY, SOMETIMES, cause

cause(
    "C020",
    "wrong-sign",
    area="loss",
    title="The training climbs: the sign of the loss, of a term or of the update is wrong",
    looks={
        "litmus-climbs": MOSTLY,
        "better-than-truth": MOSTLY,
        "starts-below-floor": OFTEN,
        "update-climbs": MOSTLY,
        "gradient-turned": MOSTLY,
        "moves-away": MOSTLY,
        "gradient-reversed": MOSTLY,
        "watched-loss-climbs": MOSTLY,
    },
    silent="A loss that was to be maximised looks fine in the log, with the sign that one expects.",
    repair="Remove the minus in front of the loss, maximize=True, or whatever turns the "
    "gradient round.",
    reference="Taxonomy of Real Faults in Deep Learning Systems (Humbatova et al., ICSE 2020)",
)

cause(
    "C021",
    "normalised-outputs-into-loss",
    area="loss",
    title="Outputs that are already probabilities go into a loss that normalises them itself",
    looks={
        "normalised-outputs": ALWAYS,
        "initial-loss-off": SOMETIMES,
        "truth-loss-high": SOMETIMES,
        "output-bounded": SOMETIMES,
    },
    silent="It learns, slowly, and the loss stays near log(number of classes).",
    repair="Remove the softmax or sigmoid in front of the loss; apply it at inference alone.",
    reference="Karpathy, A Recipe for Training Neural Networks (2019)",
)

cause(
    "C022",
    "raw-outputs-into-loss",
    area="loss",
    title="Raw outputs go into a loss that expects probabilities or their logarithm",
    looks={
        "unnormalised-outputs": ALWAYS,
        "starts-below-floor": SOMETIMES,
        "litmus-climbs": SOMETIMES,
        "better-than-truth": SOMETIMES,
    },
    silent="The loss falls without end, below zero.",
    repair="Apply log_softmax first, or use the loss that takes logits.",
    reference="Silent Bugs in Deep Learning Frameworks (Tambon et al., 2023)",
)

cause(
    "C023",
    "broadcast-in-loss",
    area="loss",
    title="Prediction and target broadcast: every prediction is compared with every label",
    looks={"shapes-broadcast": ALWAYS, "shapes-differ": MOSTLY, "truth-loss-high": OFTEN},
    silent="The loss falls to the spread of the labels, as that of a constant prediction does.",
    repair="Give both one shape, with squeeze(-1) or unsqueeze(-1).",
    reference="Silent Bugs in Deep Learning Frameworks (Tambon et al., 2023)",
)

cause(
    "C024",
    "loss-ignores-predictions",
    area="loss",
    title="A part of the prediction or of the samples does not count in the loss",
    looks={"prediction-unused": ALWAYS, "gradient-reaches-every-entry": OFTEN},
    silent="What counts is learnt, and the loss falls on it.",
    repair="Build the loss from all samples and outputs; look at indices, masks and reductions.",
    reference="the history behind the project (docs/design.md)",
)

cause(
    "C025",
    "loss-ignores-target",
    area="loss",
    title="The loss does not depend on the labels",
    looks={"target-ignored": ALWAYS, "truth-loss-high": SOMETIMES},
    silent="It has a minimum and falls to it.",
    repair="Compare the prediction with this batch's labels, not with itself or with a constant.",
    reference="the history behind the project (docs/design.md)",
)

cause(
    "C026",
    "target-changed-in-loss",
    area="loss",
    title="The perfect prediction is not the minimum of the loss: one side is transformed",
    looks={
        "truth-loss-high": MOSTLY,
        "better-than-truth": SOMETIMES,
        "truth-loss-not-zero": MOSTLY,
        "term-not-the-distance": OFTEN,
    },
    silent="The network learns whatever the loss asks for.",
    repair="Compare prediction and label in one convention: scale, order, conjugation, "
    "normalisation.",
    reference="the history behind the project (docs/design.md)",
)

cause(
    "C027",
    "term-is-cut",
    area="loss",
    title="A term of the loss has no gradient",
    looks={
        "graph-cut": OFTEN,
        "term-is-cut": ALWAYS,
        "derivative-is-constant": ALWAYS,
        "no-gradient-while-training": OFTEN,
        "no-term-reaches-network": OFTEN,
        "constant-term": MOSTLY,
        "weight-not-in-effect": OFTEN,
        "total-has-an-offset": OFTEN,
        "step-runs-through": OFTEN,
        "auxiliary-weight-low": SOMETIMES,
    },
    silent="Its value still stands in the log, and moves with the others.",
    repair="Build the term from the network's output itself: no detach(), .item(), .data or "
    "no_grad().",
    reference="the history behind the project (docs/design.md)",
)

cause(
    "C028",
    "term-missing-in-total",
    area="loss",
    title="The total is not the sum of its terms",
    looks={
        "total-not-the-sum": ALWAYS,
        "term-missing": OFTEN,
        "total-has-an-offset": OFTEN,
        "weight-not-in-effect": SOMETIMES,
        "term-not-the-distance": SOMETIMES,
        "term-left-out": ALWAYS,
        "graph-cut": SOMETIMES,
        "no-gradient": SOMETIMES,
        "step-runs-through": SOMETIMES,
    },
    silent="The total falls, and so do the terms that are in it.",
    repair="Add every declared term with its weight, once.",
    reference="the history behind the project (docs/design.md)",
)

cause(
    "C029",
    "loss-not-averaged",
    area="loss",
    title="The loss is summed over the batch, not averaged",
    looks={
        "grows-with-batch": ALWAYS,
        "smaller-rate-learns": MOSTLY,
        "update-too-large": OFTEN,
        "watched-loss-climbs": OFTEN,
    },
    silent="The gradient is batch-size times too large; Adam hides it, SGD diverges.",
    repair="Use reduction='mean', or divide by the number of samples.",
    reference="Taxonomy of Real Faults in Deep Learning Systems (Humbatova et al., ICSE 2020)",
    elsewhere=RARELY,
)

cause(
    "C030",
    "loss-arguments",
    area="loss",
    title="An argument of the loss switches a part of it off",
    looks={"loss-argument-odd": ALWAYS},
    silent="The classes that are left are learnt.",
    repair="Look at weight, pos_weight, ignore_index and label_smoothing in the call.",
    reference="Taxonomy of Real Faults in Deep Learning Systems (Humbatova et al., ICSE 2020)",
)

cause(
    "C031",
    "metric-breaks-a-law",
    area="loss",
    title="The distance breaks a law that every distance keeps",
    looks={
        "zero-at-equality": OFTEN,
        "one-at-zero-estimate": OFTEN,
        "common-scale-changes-nothing": OFTEN,
        "never-negative": OFTEN,
        "batch-order-changes-nothing": OFTEN,
        "other-samples-change-nothing": OFTEN,
        "conjugation-changes-nothing": OFTEN,
        "unitary-basis-changes-nothing": OFTEN,
        "finite-over-the-range": OFTEN,
        "gradient-matches-differences": OFTEN,
        "gradient-reaches-every-entry": OFTEN,
        "monotone-towards-truth": OFTEN,
        "precision-agrees": OFTEN,
        "distance-off": OFTEN,
        "distance-off-by-scale": OFTEN,
    },
    silent="A wrong formula has a minimum, too.",
    repair="Evaluate the distance on the example by hand; the report names the kind of mistake.",
    reference="the history behind the project (docs/design.md)",
)

cause(
    "C032",
    "no-gradient-at-large-beta",
    area="loss",
    title="At large beta no gradient is left",
    looks={
        "no-gradient-at-beta-one": MOSTLY,
        "auxiliary-weight-low": MOSTLY,
        "gradient-over-the-beta-range": MOSTLY,
    },
    silent="The blend looks the better, the less the network has to do with it.",
    repair="For beta >= 0.999 use max(lam_cov_pred, 0.2 lam_cov) as weight of the auxiliary term.",
    reference="the history behind the project (docs/design.md)",
)

cause(
    "C033",
    "loss-does-not-fit-the-task",
    area="loss",
    title="The kind of loss does not fit the labels",
    looks={"loss-kind-odd": ALWAYS, "initial-loss-off": SOMETIMES},
    silent="Any loss of prediction and label has a gradient.",
    repair="Cross entropy for classes, binary cross entropy for yes and no, a distance for "
    "numbers.",
    reference="DeepCrime (Humbatova et al., ISSTA 2021), operator LCH",
)

cause(
    "C034",
    "shows-another-loss",
    area="loss",
    title="The loss that is shown is not the one that is trained on",
    looks={"shows-another-loss": ALWAYS, "no-step-shown": OFTEN, "reported-not-observed": OFTEN},
    silent="The curve belongs to another training.",
    repair="Show the very tensor on which backward() is called.",
    reference="the history behind the project (docs/design.md)",
)

cause(
    "C035",
    "inference-differs-from-training",
    area="loss",
    title="Inference hands out another estimate than the loss supervises",
    looks={
        "inference-blend-differs": ALWAYS,
        "prediction-of-oracle-off": ALWAYS,
        "no-blend-shown": OFTEN,
    },
    silent="Each of the two is right by itself.",
    repair="Call one function in both places.",
    reference="the history behind the project (docs/design.md)",
)

cause(
    "C036",
    "class-weights-upside-down",
    area="loss",
    title="The weights of classes are the wrong way round: what is rare counts even less",
    looks={"class-weights-upside-down": ALWAYS, "loss-argument-odd": SOMETIMES},
    silent="The loss falls, and the accuracy is that of the frequent class.",
    repair="Weigh by the inverse of the share: pos_weight is the number of no over that of yes.",
    reference="DeepCrime (Humbatova et al., ISSTA 2021), operator TUD",
)

cause(
    "C037",
    "labels-of-other-samples-in-loss",
    area="loss",
    title="The loss compares predictions with the labels of other samples",
    looks={
        "pairs-parted": ALWAYS,
        "memorises-partly": SOMETIMES,
        "truth-loss-high": SOMETIMES,
    },
    silent="The shapes fit, and the loss falls to what a constant prediction reaches.",
    repair="Transpose, flatten, sort and shuffle predictions and labels alike.",
    reference="Karpathy, A Recipe for Training Neural Networks (2019)",
)
