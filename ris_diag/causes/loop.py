"""Causes that lie in the loop."""

from ris_diag.cause import ALWAYS, MOSTLY, OFTEN, RARELY, SOMETIMES, WIDELY, cause

cause(
    "C070",
    "gradients-not-cleared",
    area="loop",
    title="Gradients are added up over the steps: nothing clears them",
    looks={
        "gradients-not-cleared": ALWAYS,
        "update-climbs": SOMETIMES,
        "watched-loss-climbs": SOMETIMES,
    },
    silent="The loss falls at first, then circles.",
    repair="Call optimizer.zero_grad() in front of every backward().",
    reference="Karpathy, A Recipe for Training Neural Networks (2019)",
)

cause(
    "C071",
    "gradients-cleared-too-soon",
    area="loop",
    title="Gradients are cleared before the step uses them",
    looks={
        "cleared-before-step": ALWAYS,
        "cleared-while-accumulating": SOMETIMES,
        "update-too-small": OFTEN,
        "parameters-move": SOMETIMES,
    },
    silent="Momentum and decay still move the weights.",
    repair="zero_grad(), backward(), step(): in this order.",
    reference="TrainCheck (Jiang et al., OSDI 2025)",
)

cause(
    "C072",
    "steps-missing",
    area="loop",
    title="The optimiser steps less often than it should",
    looks={
        "steps-missing": ALWAYS,
        "passes-without-steps": ALWAYS,
        "litmus-steps-differ": SOMETIMES,
        "no-steps": OFTEN,
        "optimiser-idle": ALWAYS,
    },
    silent="It learns, a hundred times too slowly.",
    repair="Call step() inside the loop over batches; look at indentation, break and continue.",
    reference="the history behind the project (docs/design.md)",
    elsewhere=RARELY,
)

cause(
    "C073",
    "exceptions-swallowed",
    area="loop",
    title="Exceptions of the training are swallowed",
    looks={
        "exceptions-swallowed": ALWAYS,
        "steps-missing": OFTEN,
        "no-steps": OFTEN,
        "raises": SOMETIMES,
    },
    silent="The loop runs to its end.",
    repair="Let the exception end the training.",
    reference="the history behind the project (docs/design.md)",
    elsewhere=WIDELY,
)

cause(
    "C074",
    "step-without-backward",
    area="loop",
    title="The optimiser steps without a gradient of its own",
    looks={"step-without-backward": ALWAYS, "too-many-steps": OFTEN, "litmus-steps-differ": OFTEN},
    silent="A second step with the same gradient looks like a larger rate.",
    repair="One backward() for every step().",
    reference="TrainCheck (Jiang et al., OSDI 2025)",
)

cause(
    "C075",
    "optimiser-rebuilt",
    area="loop",
    title="The optimiser is built anew again and again",
    looks={"optimiser-rebuilt": ALWAYS},
    silent="Every single step is right; moments and schedule are lost.",
    repair="Build it once, in front of the loop over epochs.",
    reference="TrainCheck (Jiang et al., OSDI 2025)",
)

cause(
    "C076",
    "weights-put-back",
    area="loop",
    title="Something puts the weights back behind the step",
    looks={"weights-put-back": ALWAYS, "statistics-still": OFTEN},
    silent="Every step is right and is undone.",
    repair="Look for load_state_dict, copies of the best weights, or averaging inside the loop.",
    reference="the history behind the project (docs/design.md)",
)

cause(
    "C077",
    "one-batch-for-ever",
    area="loop",
    title="The loop trains on one batch for ever",
    looks={"batches-differ": ALWAYS, "same-batch-served": OFTEN},
    silent="The training loss falls beautifully.",
    repair="Use the loop's variable; look for next(iter(loader)).",
    reference="Karpathy, A Recipe for Training Neural Networks (2019)",
)

cause(
    "C078",
    "eval-mode-while-training",
    area="loop",
    title="The network trains in eval mode",
    looks={"eval-while-training": ALWAYS},
    silent="Gradients flow in either mode.",
    repair="Call model.train() in front of every epoch.",
    reference="Karpathy, A Recipe for Training Neural Networks (2019)",
)

cause(
    "C079",
    "train-mode-while-validating",
    area="loop",
    title="The network validates in train mode",
    looks={"train-while-validating": ALWAYS, "metric-in-train-mode": OFTEN},
    silent="Validation is only a little worse, and noisy.",
    repair="Call model.eval() in front of the validation.",
    reference="Karpathy, A Recipe for Training Neural Networks (2019)",
)

cause(
    "C080",
    "trains-on-validation",
    area="loop",
    title="The weights learn from validation data",
    looks={"trains-on-validation": ALWAYS},
    silent="The validation loss falls, as it should.",
    repair="No backward() and no step() in the validation; train on the training batches alone.",
    reference="Taxonomy of Real Faults in Deep Learning Systems (Humbatova et al., ICSE 2020)",
)

cause(
    "C081",
    "reported-loss-wrong",
    area="loop",
    title="The reported loss is not the mean of the losses seen",
    looks={
        "reported-not-observed": ALWAYS,
        "reported-not-positive": OFTEN,
        "epochs-missing": SOMETIMES,
    },
    silent="A curve that falls is believed.",
    repair="Average loss.item() over the batches of the epoch.",
    reference="the history behind the project (docs/design.md)",
)

cause(
    "C082",
    "scheduler-in-wrong-place",
    area="loop",
    title="The scheduler steps in the wrong place",
    looks={"scheduler-first": ALWAYS},
    silent="The first rate is skipped, the others come.",
    repair="scheduler.step() behind optimizer.step().",
    reference="Silent Bugs in Deep Learning Frameworks (Tambon et al., 2023)",
)

cause(
    "C083",
    "schedule-runs-out",
    area="loop",
    title="The learning rate is gone before the training began",
    looks={"rate-collapses": MOSTLY, "rate-zero": OFTEN},
    silent="The first steps learn; then there is a plateau.",
    repair="Step the scheduler by epoch, or tell it the number of batches.",
    reference="Silent Bugs in Deep Learning Frameworks (Tambon et al., 2023)",
)

cause(
    "C084",
    "clipping-in-wrong-place",
    area="loop",
    title="Gradients are clipped where it does not count",
    looks={
        "clip-late": ALWAYS,
        "clip-scaled": ALWAYS,
        "clipped-to-nothing": OFTEN,
        "clip-early": ALWAYS,
    },
    silent="Clipping raises nothing.",
    repair="unscale_, clip, step: in this order.",
    reference="Silent Bugs in Deep Learning Frameworks (Tambon et al., 2023)",
)

cause(
    "C085",
    "scaler-misused",
    area="loop",
    title="The GradScaler is not used to the end",
    looks={
        "never-unscaled": ALWAYS,
        "no-scaler-update": ALWAYS,
        "loss-not-scaled": ALWAYS,
        "update-too-large": OFTEN,
        "loss-explodes": OFTEN,
    },
    silent="Adam hides the factor.",
    repair="scaler.scale(loss).backward(), scaler.step(optimizer), scaler.update().",
    reference="Silent Bugs in Deep Learning Frameworks (Tambon et al., 2023)",
    elsewhere=WIDELY,
)

cause(
    "C086",
    "clipped-to-nothing",
    area="loop",
    title="Clipping takes nearly all of the gradient",
    looks={
        "clipped-to-nothing": ALWAYS,
        "clip-not-declared": SOMETIMES,
        "larger-rate-learns": OFTEN,
    },
    silent="Updates of one size look like learning.",
    repair="Compare the limit with the gradient norms.",
    reference="DeepCrime (Humbatova et al., ISSTA 2021), operator OCG",
)

cause(
    "C087",
    "loss-carried-over",
    area="loop",
    title="The loss of earlier steps is added to that of this one",
    looks={"loss-carried-over": ALWAYS, "raises": SOMETIMES, "reported-not-observed": SOMETIMES},
    silent="The sum falls where its parts do.",
    repair="Use a new variable for every batch's loss.",
    reference="Silent Bugs in Deep Learning Frameworks (Tambon et al., 2023)",
)

cause(
    "C088",
    "does-not-stop-or-start",
    area="loop",
    title="The loop does not keep to the epochs asked for",
    looks={"epochs-missing": ALWAYS, "litmus-steps-differ": SOMETIMES, "steps-missing": OFTEN},
    silent="Nothing compares the two numbers.",
    repair="Go through the plan's batches as many times as it says.",
    reference="DeepCrime (Humbatova et al., ISSTA 2021), operator HNE",
)

cause(
    "C095",
    "best-weights-not-copied",
    area="loop",
    title="The best weights are kept as a reference and move on",
    looks={"restores-itself": ALWAYS},
    silent="A best epoch is found and restored; the weights are those of the last.",
    repair="copy.deepcopy(model.state_dict()), or save it to a file.",
    reference="PyTorch's notes on saving and loading: state_dict() returns references",
)

cause(
    "C089",
    "gradient-replaced",
    area="loop",
    title="The gradient at the step is not that of the loss",
    looks={
        "gradient-not-of-loss": ALWAYS,
        "backward-not-derivative": ALWAYS,
        "gradient-turned": ALWAYS,
        "update-climbs": SOMETIMES,
        "watched-loss-climbs": SOMETIMES,
    },
    silent="There is a gradient, and the weights move.",
    repair="Look for hooks, for an autograd.Function of your own, and for what writes into .grad.",
    reference="TrainCheck (Jiang et al., OSDI 2025)",
)
