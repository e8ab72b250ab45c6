"""Causes that lie in numerics."""

from ris_diag.cause import ALWAYS, MOSTLY, OFTEN, RARELY, SOMETIMES, WIDELY, cause

cause(
    "C170",
    "operation-not-finite",
    area="numerics",
    title="An operation gives NaN or infinity",
    looks={
        "operation-not-finite": ALWAYS,
        "loss-not-finite": OFTEN,
        "litmus-not-finite": OFTEN,
        "losses-not-finite": OFTEN,
        "values-not-finite": OFTEN,
        "raises": SOMETIMES,
    },
    silent="It happens for one input in a thousand, and spreads.",
    repair="Keep logarithms, roots and quotients away from zero, inside of where() too.",
    reference="Taxonomy of Real Faults in Deep Learning Systems (Humbatova et al., ICSE 2020)",
    elsewhere=WIDELY,
)

cause(
    "C171",
    "gradient-not-finite",
    area="numerics",
    title="The gradient of a finite loss is not finite",
    looks={
        "gradient-operation-not-finite": ALWAYS,
        "values-not-finite": MOSTLY,
        "term-gradient-not-finite": MOSTLY,
    },
    silent="The loss of this step is fine.",
    repair="Roots and norms have no slope at zero: add inside of the root, or use where on the "
    "input.",
    reference="Silent Bugs in Deep Learning Frameworks (Tambon et al., 2023)",
    elsewhere=WIDELY,
)

cause(
    "C172",
    "absolute-constant",
    area="numerics",
    title="An absolute constant in a denominator swallows small values",
    looks={
        "constant-swallows": ALWAYS,
        "common-scale-changes-nothing": OFTEN,
        "distance-off-by-scale": OFTEN,
        "larger-rate-learns": OFTEN,
    },
    silent="Values of ordinary size are right.",
    repair="Divide by the truth's own energy, or make the constant relative.",
    reference="the history behind the project (docs/design.md)",
)

cause(
    "C173",
    "updates-lost-to-precision",
    area="numerics",
    title="Updates are smaller than the weights' precision",
    looks={
        "updates-rounded-away": ALWAYS,
        "parameters-move": OFTEN,
        "update-too-small": SOMETIMES,
        "larger-rate-learns": SOMETIMES,
    },
    silent="Gradients are everywhere.",
    repair="Keep the weights in float32; use autocast for the computation alone.",
    reference="Silent Bugs in Deep Learning Frameworks (Tambon et al., 2023)",
)

cause(
    "C174",
    "loss-in-half-precision",
    area="numerics",
    title="The loss is computed in half precision",
    looks={"loss-summed-in-half": ALWAYS, "loss-in-half": MOSTLY},
    silent="Three digits look like a plateau.",
    repair="Cast to float32 in front of the loss.",
    reference="Silent Bugs in Deep Learning Frameworks (Tambon et al., 2023)",
)

cause(
    "C230",
    "half-overflows",
    area="numerics",
    title="An operation leaves the range of float16",
    looks={
        "half-overflows": ALWAYS,
        "operation-not-finite": OFTEN,
        "loss-not-finite": OFTEN,
        "values-not-finite": OFTEN,
        "litmus-not-finite": OFTEN,
        "losses-not-finite": OFTEN,
    },
    silent="A GradScaler skips the step, and an infinity in a denominator makes a zero.",
    repair="Compute sums of squares, exponentials and long products in float32, or take bfloat16.",
    reference="Mixed Precision Training (Micikevicius et al., ICLR 2018)",
    elsewhere=WIDELY,
)

cause(
    "C231",
    "gradient-underflows",
    area="numerics",
    title="The gradient is too small for float16",
    looks={
        "gradient-underflows": ALWAYS,
        "parameters-move": SOMETIMES,
        "update-too-small": SOMETIMES,
    },
    silent="Layers next to the loss still learn.",
    repair="Scale the loss by torch.amp.GradScaler as it is by default, or take bfloat16.",
    reference="Mixed Precision Training (Micikevicius et al., ICLR 2018)",
    elsewhere=RARELY,
)

cause(
    "C232",
    "epsilon-vanishes",
    area="numerics",
    title="The optimiser's eps is zero in the precision of its weights",
    looks={
        "epsilon-vanishes": ALWAYS,
        "values-not-finite": OFTEN,
        "operation-not-finite": OFTEN,
        "loss-not-finite": OFTEN,
        "updates-rounded-away": SOMETIMES,
    },
    silent="It lasts until the first second moment vanishes.",
    repair="Keep the weights in float32 and use autocast, or give an eps of 1e-4 or more.",
    reference="Mixed Precision Training (Micikevicius et al., ICLR 2018)",
    elsewhere=WIDELY,
)

cause(
    "C233",
    "master-weights-rounded",
    area="numerics",
    title="Float32 weights are rounded to half precision in every step",
    looks={
        "master-weights-rounded": ALWAYS,
        "weights-put-back": OFTEN,
        "larger-rate-learns": SOMETIMES,
        "update-too-small": SOMETIMES,
    },
    silent="The optimiser holds float32 weights, as it should.",
    repair="Compute with a copy in half precision, or under autocast; never cast the weights "
    "themselves inside of the loop.",
    reference="Mixed Precision Training (Micikevicius et al., ICLR 2018)",
)

cause(
    "C234",
    "devices-part",
    area="numerics",
    title="The device computes something else than the CPU",
    looks={"devices-part": ALWAYS},
    silent="Each device by itself trains.",
    repair="Look at what depends on the device in the named module; run it on the same input on "
    "both.",
    reference="Silent Bugs in Deep Learning Frameworks (Tambon et al., 2023)",
)

cause(
    "C190",
    "learnt-nothing-new",
    area="numerics",
    title="The network gives nothing beyond what needs no training",
    looks={"no-better-than-classical": ALWAYS, "no-better-than-free": ALWAYS},
    silent="The loss falls to what is free.",
    repair="More data, another input, another network; the wiring is right.",
    reference="the history behind the project (docs/design.md)",
)

cause(
    "C191",
    "code-raises",
    area="numerics",
    title="The code under test raises",
    looks={"raises": ALWAYS},
    silent="It isn't silent.",
    repair="Mend what the message names.",
    reference="the traceback",
)

cause(
    "C192",
    "does-not-learn",
    area="numerics",
    title="The training does not learn, and the evidence names no cause",
    looks={
        "litmus-does-not-fall": ALWAYS,
        "memorises-nothing": OFTEN,
        "memorises-partly": SOMETIMES,
        "prediction-does-not-fall": OFTEN,
    },
    silent="A plateau has a hundred causes.",
    repair="Bisect: the same model in ris-diag's own loop (Case.from_xy), with a plain loss, on "
    "another data set.",
    reference="Karpathy, A Recipe for Training Neural Networks (2019)",
    settles="train the same model by Case.from_xy: its loop is ris-diag's own",
)
