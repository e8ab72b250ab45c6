"""Causes that lie in the model."""

from ris_diag.cause import ALWAYS, MOSTLY, OFTEN, RARELY, SOMETIMES, cause

cause(
    "C040",
    "graph-is-cut",
    area="model",
    title="The graph is cut between parameters and loss",
    looks={
        "graph-cut": MOSTLY,
        "loss-without-gradient": MOSTLY,
        "no-gradient": SOMETIMES,
        "no-gradient-while-training": SOMETIMES,
        "no-term-reaches-network": SOMETIMES,
        "term-is-cut": SOMETIMES,
        "inference-blend-differs": SOMETIMES,
        "sampled-without-path": MOSTLY,
        "flat-operation": ALWAYS,
        "step-runs-through": SOMETIMES,
        "moved-to-cpu": SOMETIMES,
        "cuda-tensor-to-numpy": SOMETIMES,
        "numpy-array-on-cpu": SOMETIMES,
        "made-without-device": SOMETIMES,
    },
    silent="The part behind the cut learns, and the loss falls on it.",
    repair="Take out detach(), .data, .item(), .numpy(), argmax, no_grad or the tensor that is "
    "built anew.",
    reference="Karpathy, A Recipe for Training Neural Networks (2019)",
    elsewhere=RARELY,
)

cause(
    "C041",
    "parameter-not-registered",
    area="model",
    title="Parameters on which the loss depends are not the model's",
    looks={
        "parameters-are-registered": ALWAYS,
        "module-not-moved": MOSTLY,
        "constant-not-moved": OFTEN,
        "samples-are-independent": SOMETIMES,
        "inference-is-deterministic": SOMETIMES,
        "metric-random": SOMETIMES,
    },
    silent="forward() works; state_dict(), to() and parameters() pass them over.",
    repair="Keep layers in nn.ModuleList or nn.ModuleDict, tensors in nn.Parameter.",
    reference="Silent Bugs in Deep Learning Frameworks (Tambon et al., 2023)",
)

cause(
    "C042",
    "module-never-used",
    area="model",
    title="A module that was built is never called",
    looks={"modules-are-called": ALWAYS, "no-gradient": MOSTLY},
    silent="The network is smaller than its description and works.",
    repair="Call it in forward(), or remove it.",
    reference="Taxonomy of Real Faults in Deep Learning Systems (Humbatova et al., ICSE 2020)",
)

cause(
    "C043",
    "dead-activations",
    area="model",
    title="Activations are dead or saturated from the start",
    looks={
        "dead-at-start": ALWAYS,
        "zero-gradient": OFTEN,
        "input-ignored": OFTEN,
        "target-ignored": SOMETIMES,
        "layer-input-zero": SOMETIMES,
    },
    silent="Zero is an ordinary output of an activation.",
    repair="Look at the scale of inputs and weights, and at the biases.",
    reference="Karpathy, A Recipe for Training Neural Networks (2019)",
)

cause(
    "C044",
    "units-start-alike",
    area="model",
    title="All units of a layer start alike and stay alike",
    looks={"units-alike": ALWAYS},
    silent="A layer of equal units works like one unit.",
    repair="Initialise weights at random.",
    reference="DeepCrime (Humbatova et al., ISSTA 2021), operator WCI",
)

cause(
    "C045",
    "all-weights-zero",
    area="model",
    title="All weights start at zero",
    looks={
        "all-weights-zero": ALWAYS,
        "zero-gradient": OFTEN,
        "units-alike": SOMETIMES,
        "layer-input-zero": OFTEN,
        "statistics-still": OFTEN,
    },
    silent="The last bias learns the mean of the labels.",
    repair="Initialise weights at random; at most the last layer may start at zero.",
    reference="DeepCrime (Humbatova et al., ISSTA 2021), operator WCI",
    elsewhere=RARELY,
)

cause(
    "C046",
    "initial-scale-wrong",
    area="model",
    title="The initial weights are too large or too small by orders of magnitude",
    looks={
        "initial-scale-off": ALWAYS,
        "dead-at-start": SOMETIMES,
        "initial-loss-off": OFTEN,
        "update-too-small": SOMETIMES,
        "larger-rate-learns": SOMETIMES,
    },
    silent="The first epochs are spent on the scale, and the curve looks like learning.",
    repair="Use the initialisation that belongs to the activation (kaiming, xavier).",
    reference="Karpathy, A Recipe for Training Neural Networks (2019)",
)

cause(
    "C047",
    "output-cannot-reach-labels",
    area="model",
    title="What the network ends with cannot give the labels",
    looks={
        "output-bounded": ALWAYS,
        "output-not-hermitian": ALWAYS,
        "truth-loss-high": SOMETIMES,
        "memorises-partly": SOMETIMES,
    },
    silent="It learns the labels within its range.",
    repair="Remove the activation behind the last layer, or scale the labels into its range; build "
    "a covariance as L L^H.",
    reference="DeepCrime (Humbatova et al., ISSTA 2021), operator AAL",
)

cause(
    "C048",
    "no-activation-between-layers",
    area="model",
    title="No activation stands between the layers: together they are one linear map",
    looks={"layers-collapse": ALWAYS},
    silent="A linear model learns, too, and stops early.",
    repair="Put the activation back between the layers.",
    reference="DeepCrime (Humbatova et al., ISSTA 2021), operator ARM",
)

cause(
    "C049",
    "part-multiplied-by-zero",
    area="model",
    title="A weight, mask or gate of zero shuts off a part of the network",
    looks={
        "zero-gradient": ALWAYS,
        "input-ignored": OFTEN,
        "target-ignored": SOMETIMES,
        "layer-input-zero": MOSTLY,
    },
    silent="Everything is computed, and nothing of it counts.",
    repair="Look for a factor of 0, an empty mask, or a branch that is not taken.",
    reference="Taxonomy of Real Faults in Deep Learning Systems (Humbatova et al., ICSE 2020)",
)

cause(
    "C050",
    "samples-mix",
    area="model",
    title="A sample's prediction depends on the samples beside it",
    looks={
        "samples-are-independent": ALWAYS,
        "softmax-over-batch": OFTEN,
        "metric-depends-on-order": SOMETIMES,
    },
    silent="Validation in batches of one size looks better than the truth.",
    repair="Keep dimension 0 apart: batch_first, dim=, view against permute.",
    reference="Karpathy, A Recipe for Training Neural Networks (2019)",
)

cause(
    "C051",
    "dropout-extreme",
    area="model",
    title="Dropout takes nearly everything",
    looks={"dropout-extreme": ALWAYS},
    silent="Noise looks like a hard problem.",
    repair="Lower p; 0.1 to 0.5 is usual.",
    reference="DeepCrime (Humbatova et al., ISSTA 2021), operator RCD",
)

cause(
    "C052",
    "batch-norm-statistics",
    area="model",
    title="Batch norm's statistics are of no use",
    looks={"statistics-still": MOSTLY, "few-values-a-channel": MOSTLY},
    silent="Training mode does without them.",
    repair="Larger batches, a momentum above 0, or group norm.",
    reference="Silent Bugs in Deep Learning Frameworks (Tambon et al., 2023)",
)

cause(
    "C053",
    "capacity-too-small",
    area="model",
    title="The network cannot express the labels of one batch",
    looks={"memorises-partly": ALWAYS},
    silent="It learns, as far as it can.",
    repair="More capacity, or another output.",
    reference="Karpathy, A Recipe for Training Neural Networks (2019)",
    settles="train a larger network on the same batch",
)

cause(
    "C054",
    "sees-the-future",
    area="model",
    title="The prediction depends on what comes later in the sequence",
    looks={"sees-future": ALWAYS},
    silent="The loss is too good, and generation fails.",
    repair="Apply the causal mask.",
    reference="Karpathy, A Recipe for Training Neural Networks (2019)",
)

cause(
    "C055",
    "input-ignored",
    area="model",
    title="The prediction does not depend on the input, or on a part of it",
    looks={
        "input-ignored": ALWAYS,
        "zero-gradient": SOMETIMES,
        "layer-input-zero": MOSTLY,
        "target-ignored": SOMETIMES,
        "metric-ignores-weights": OFTEN,
    },
    silent="The loss falls to what the labels' distribution allows.",
    repair="Use the batch's input in forward(); look for overwritten variables and constants.",
    reference="Karpathy, A Recipe for Training Neural Networks (2019)",
)

cause(
    "C056",
    "softmax-over-wrong-axis",
    area="model",
    title="A softmax runs over an axis of length one, or over the batch",
    looks={
        "softmax-over-one": ALWAYS,
        "softmax-over-batch": MOSTLY,
        "input-ignored": OFTEN,
        "zero-gradient": OFTEN,
        "normalised-outputs": SOMETIMES,
        "target-ignored": OFTEN,
        "update-too-small": OFTEN,
    },
    silent="The outputs are valid probabilities.",
    repair="Give the axis of the classes: dim=1 or dim=-1.",
    reference="Silent Bugs in Deep Learning Frameworks (Tambon et al., 2023)",
)

cause(
    "C057",
    "noise-at-inference",
    area="model",
    title="Inference is random",
    looks={
        "inference-is-deterministic": ALWAYS,
        "metric-random": OFTEN,
        "samples-are-independent": OFTEN,
        "metric-depends-on-order": SOMETIMES,
    },
    silent="Each single number is plausible.",
    repair="Pass training=self.training to functional dropout; keep modules where eval() finds "
    "them.",
    reference="Silent Bugs in Deep Learning Frameworks (Tambon et al., 2023)",
)
