"""Causes that lie in data."""

from ris_diag.cause import ALWAYS, MOSTLY, OFTEN, RARELY, SOMETIMES, WIDELY, cause

cause(
    "C120",
    "nan-in-data",
    area="data",
    title="Samples hold NaN or infinity",
    looks={
        "nan-in-data": ALWAYS,
        "nan-in-covariance": ALWAYS,
        "loss-not-finite": OFTEN,
        "losses-not-finite": OFTEN,
        "litmus-not-finite": OFTEN,
        "values-not-finite": OFTEN,
        "operation-not-finite": OFTEN,
        "term-gradient-not-finite": OFTEN,
        "gradient-trivial": OFTEN,
        "input-ignored": SOMETIMES,
        "update-too-small": SOMETIMES,
        "raises": SOMETIMES,
        "inference-is-deterministic": SOMETIMES,
    },
    silent="One sample in a thousand is met in the third epoch.",
    repair="Find the samples by their index, and mend where they are made.",
    reference="Taxonomy of Real Faults in Deep Learning Systems (Humbatova et al., ICSE 2020)",
    elsewhere=WIDELY,
)

cause(
    "C121",
    "input-constant",
    area="data",
    title="The input is the same for every sample",
    looks={
        "input-constant": ALWAYS,
        "dead-at-start": OFTEN,
        "input-ignored": OFTEN,
        "zero-gradient": OFTEN,
        "statistics-still": OFTEN,
        "layer-input-zero": OFTEN,
        "samples-repeated": OFTEN,
    },
    silent="The mean of the labels is learnt.",
    repair="Look at what the loader hands out, and at the normalisation.",
    reference="Karpathy, A Recipe for Training Neural Networks (2019)",
)

cause(
    "C122",
    "input-scale-off",
    area="data",
    title="The input is scaled wrongly: not at all, twice, or by decades between features",
    looks={
        "input-scale-off": ALWAYS,
        "prediction-unused": SOMETIMES,
        "update-too-large": OFTEN,
        "smaller-rate-learns": OFTEN,
        "initial-loss-off": OFTEN,
        "loss-explodes": OFTEN,
        "loss-not-finite": OFTEN,
        "losses-not-finite": OFTEN,
        "litmus-not-finite": OFTEN,
        "values-not-finite": OFTEN,
        "operation-not-finite": SOMETIMES,
    },
    silent="A network learns on the features that are large enough.",
    repair="Normalise once, each feature by its mean and spread over the training set.",
    reference="Taxonomy of Real Faults in Deep Learning Systems (Humbatova et al., ICSE 2020)",
    elsewhere=WIDELY,
)

cause(
    "C123",
    "labels-constant",
    area="data",
    title="The labels are the same for every sample, or nearly",
    looks={"labels-constant": ALWAYS, "labels-independent": SOMETIMES},
    silent="The loss falls to zero, and the accuracy is perfect.",
    repair="Look where the labels are read.",
    reference="Taxonomy of Real Faults in Deep Learning Systems (Humbatova et al., ICSE 2020)",
)

cause(
    "C124",
    "labels-of-other-samples",
    area="data",
    title="The labels do not belong to their inputs",
    looks={
        "labels-independent": ALWAYS,
        "learnt-nothing-general": MOSTLY,
        "side-input-useless": SOMETIMES,
        "moments-off": OFTEN,
        "snapshots-incoherent": OFTEN,
        "labels-disagree": SOMETIMES,
    },
    silent="The training memorises them, and only validation stays flat.",
    repair="Shuffle inputs and labels together; look at two index lists that parted.",
    reference="DeepCrime (Humbatova et al., ISSTA 2021), operator TCL",
    settles="permute the labels: nothing gets worse",
)

cause(
    "C125",
    "labels-truncated",
    area="data",
    title="The labels are cut off at a value",
    looks={"labels-truncated": ALWAYS},
    silent="Most labels are right.",
    repair="Look for clamp, integer types and maximum lengths.",
    reference="Taxonomy of Real Faults in Deep Learning Systems (Humbatova et al., ICSE 2020)",
)

cause(
    "C126",
    "label-in-input",
    area="data",
    title="The label stands in the input",
    looks={"label-in-input": ALWAYS},
    silent="The results are excellent.",
    repair="Take the column out of the input.",
    reference="Taxonomy of Real Faults in Deep Learning Systems (Humbatova et al., ICSE 2020)",
)

cause(
    "C127",
    "splits-overlap",
    area="data",
    title="Samples of one split stand in another",
    looks={"splits-overlap": ALWAYS},
    silent="Validation is as good as training.",
    repair="Split once, by sample, before anything is shuffled or augmented.",
    reference="the history behind the project (docs/design.md)",
)

cause(
    "C128",
    "labels-shifted",
    area="data",
    title="The labels are shifted against their sequence",
    looks={"labels-shifted": ALWAYS, "truth-loss-high": OFTEN},
    silent="Copying the input, or one step further ahead, can be learnt, too.",
    repair="labels[t] = input[t + 1]: check both ends.",
    reference="Karpathy, A Recipe for Training Neural Networks (2019)",
)

cause(
    "C129",
    "side-input-useless",
    area="data",
    title="A side input carries no information about the label",
    looks={
        "side-input-useless": ALWAYS,
        "side-input-not-its-snapshots": MOSTLY,
    },
    silent="The network learns not to use it.",
    repair="Look at how it is computed: number of snapshots, mean removal, symbols held constant.",
    reference="the history behind the project (docs/design.md)",
)

cause(
    "C130",
    "conventions-differ",
    area="data",
    title="Truth and side input are in different conventions, conjugated or transposed",
    looks={
        "conventions-differ": ALWAYS,
        "side-input-not-its-snapshots": OFTEN,
        "side-input-useless": SOMETIMES,
        "trace-off": SOMETIMES,
        "moments-off": SOMETIMES,
        "snapshots-incoherent": SOMETIMES,
        "blend-refuses-bad-input": SOMETIMES,
    },
    silent="Both are Hermitian matrices of the right size.",
    repair="Compute both as E[x x^H].",
    reference="the history behind the project (docs/design.md)",
)

cause(
    "C131",
    "not-a-covariance",
    area="data",
    title="Covariances are not Hermitian, not positive semidefinite, or of the wrong trace",
    looks={
        "not-hermitian": MOSTLY,
        "negative-eigenvalues": MOSTLY,
        "zero-truth": MOSTLY,
        "trace-off": MOSTLY,
        "side-input-not-its-snapshots": SOMETIMES,
        "raises": OFTEN,
    },
    silent="Any matrix has a distance to any other.",
    repair="Look where the matrices are made, stored and normalised.",
    reference="the history behind the project (docs/design.md)",
    elsewhere=RARELY,
)

cause(
    "C132",
    "same-batch-served",
    area="data",
    title="The loader serves the same batch again and again",
    looks={"same-batch-served": ALWAYS, "batches-differ": SOMETIMES},
    silent="The training loss falls beautifully.",
    repair="Advance the index, the iterator or the seed.",
    reference="Karpathy, A Recipe for Training Neural Networks (2019)",
)

cause(
    "C133",
    "batches-sorted",
    area="data",
    title="The batches are sorted by label: nothing shuffles them",
    looks={"batches-sorted": ALWAYS},
    silent="Each batch is learnt, and forgotten in the next.",
    repair="shuffle=True, or shuffle the samples once.",
    reference="Silent Bugs in Deep Learning Frameworks (Tambon et al., 2023)",
)

cause(
    "C134",
    "classes-imbalanced",
    area="data",
    title="A class is missing, or nearly all labels are of one class",
    looks={"classes-imbalanced": ALWAYS},
    silent="The accuracy is high.",
    repair="Look at the selection of the samples; weigh or resample.",
    reference="DeepCrime (Humbatova et al., ISSTA 2021), operator TUD",
)

cause(
    "C135",
    "splits-differ",
    area="data",
    title="Training and validation come from different distributions",
    looks={"splits-differ": ALWAYS, "learnt-nothing-general": SOMETIMES},
    silent="Each split by itself looks right.",
    repair="Apply one preprocessing, with the training set's numbers, to all splits.",
    reference="Taxonomy of Real Faults in Deep Learning Systems (Humbatova et al., ICSE 2020)",
)

cause(
    "C136",
    "samples-repeated",
    area="data",
    title="Samples are repeated within the training split",
    looks={"samples-repeated": ALWAYS},
    silent="Repeated samples are learnt well.",
    repair="Look at the concatenation or the sampling with replacement.",
    reference="DeepCrime (Humbatova et al., ISSTA 2021), operator TRD",
)

cause(
    "C137",
    "snapshots-incoherent",
    area="data",
    title="The snapshots do not have the rank or the moments that the label says",
    looks={"snapshots-incoherent": ALWAYS, "moments-off": MOSTLY, "side-input-useless": OFTEN},
    silent="A single sample covariance looks like any other.",
    repair="Draw the symbols anew in every snapshot; give signal and noise the powers of the "
    "label.",
    reference="the history behind the project (docs/design.md)",
)

cause(
    "C138",
    "labels-contradict",
    area="data",
    title="Labels of one scene contradict each other",
    looks={"labels-disagree": ALWAYS, "side-input-useless": SOMETIMES},
    silent="Each label by itself is a valid one.",
    repair="Write all labels of a scene by one index; shuffle and filter them together.",
    reference="the history behind the project (docs/design.md)",
)
