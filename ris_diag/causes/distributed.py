"""Causes that lie in a training on several processes."""

from ris_diag.cause import ALWAYS, MOSTLY, OFTEN, cause

DDP = "PyTorch, Distributed Data Parallel, internal design and notes"
DESIGN = "PyTorch Distributed: Experiences on Accelerating Data Parallel Training (Li et al., 2020)"

cause(
    "C210",
    "model-not-wrapped",
    area="distributed",
    title="Nothing exchanges the gradients of the ranks",
    looks={"not-wrapped": ALWAYS},
    silent="Every rank trains a model of its own, and each of them learns.",
    repair="Train DistributedDataParallel(model), not the model.",
    reference=DESIGN,
)

cause(
    "C211",
    "wrapper-not-called",
    area="distributed",
    title="The loop calls what is wrapped instead of the wrapper",
    looks={"wrapper-bypassed": ALWAYS},
    silent="model.module computes the same, and exchanges nothing.",
    repair="Call the wrapped model in training; keep .module for saving.",
    reference=DDP,
)

cause(
    "C212",
    "no-sync-never-ends",
    area="distributed",
    title="The pass in front of a step still runs under no_sync()",
    looks={"synchronising-off": ALWAYS},
    silent="It is accumulation of gradients, on every rank for itself.",
    repair="Leave no_sync() for the last batch in front of step(), its forward pass included.",
    reference=DDP,
)

cause(
    "C213",
    "parameters-outside-wrapper",
    area="distributed",
    title="Parameters were added behind the wrapping, or stand beside it",
    looks={"outside-of-wrapper": ALWAYS},
    silent="The others are exchanged, and the loss falls.",
    repair="Build the whole model first, then wrap it.",
    reference=DDP,
)

cause(
    "C214",
    "weights-begin-apart",
    area="distributed",
    title="The ranks begin with different weights",
    looks={"replicas-start-apart": ALWAYS},
    silent="Gradients are exchanged, so the replicas stay as far apart as they began.",
    repair="Initialise or load in front of the wrapping, or on every rank alike.",
    reference=DDP,
)

cause(
    "C215",
    "steps-of-ranks-differ",
    area="distributed",
    title="The ranks take different steps along the same gradient",
    looks={"replicas-step-apart": ALWAYS},
    silent="The gradients are equal on all ranks.",
    repair="Let nothing of the optimiser or of clipping depend on the rank or on its own loss.",
    reference=DDP,
)

cause(
    "C216",
    "gradients-changed-by-rank",
    area="distributed",
    title="Something changes the gradients of a rank behind their exchange",
    looks={"gradients-differ": ALWAYS},
    silent="They were exchanged, and nothing looks at them again.",
    repair="Add noise, clip and mask by numbers that all ranks share.",
    reference=DDP,
)

cause(
    "C217",
    "sampler-missing",
    area="distributed",
    title="Every rank goes through the whole data set",
    looks={"ranks-get-same-data": MOSTLY, "rank-serves-everything": MOSTLY},
    silent="An epoch takes as long as on one device, and the loss is the same.",
    repair="Give the loader a DistributedSampler in place of shuffle=True.",
    reference="PyTorch, torch.utils.data.distributed.DistributedSampler",
)

cause(
    "C218",
    "samplers-disagree",
    area="distributed",
    title="The ranks deal from differently shuffled data",
    looks={"ranks-overlap": ALWAYS},
    silent="Each rank gets its number of samples; some come twice, some never.",
    repair="Give the sampler the same seed and the same data set on every rank.",
    reference="PyTorch, torch.utils.data.distributed.DistributedSampler",
)

cause(
    "C219",
    "epoch-not-set",
    area="distributed",
    title="The sampler is not told the epoch",
    looks={"order-never-changes": ALWAYS},
    silent="The first epoch is shuffled, and so are all others, in the same way.",
    repair="Call sampler.set_epoch(epoch) in front of every epoch.",
    reference="PyTorch, torch.utils.data.distributed.DistributedSampler",
)

cause(
    "C220",
    "buffers-not-shared",
    area="distributed",
    title="Every rank keeps running statistics of its own",
    looks={"buffer-parts": ALWAYS},
    silent="Training mode doesn't use them; validation on rank 0 uses those of rank 0.",
    repair="Leave broadcast_buffers=True, or use SyncBatchNorm; register own tensors as buffers.",
    reference=DDP,
)

cause(
    "C221",
    "parameters-unused",
    area="distributed",
    title="Some parameters take no part in the loss, and the exchange waits for them",
    looks={"unused-parameter": ALWAYS, "no-gradient": OFTEN},
    silent="On one device such a parameter only stays what it is.",
    repair="Remove or freeze them, or wrap with find_unused_parameters=True.",
    reference=DDP,
)

cause(
    "C222",
    "collective-on-some-ranks",
    area="distributed",
    title="Not all ranks come to a collective",
    looks={"rank-waits": ALWAYS},
    silent="The others wait for half an hour.",
    repair="Let no condition on the rank, or on its data, stand around a collective.",
    reference="PyTorch, torch.distributed.monitored_barrier",
)

cause(
    "C223",
    "ranks-get-uneven-batches",
    area="distributed",
    title="A rank runs out of batches in front of the others",
    looks={"uneven-batches": ALWAYS},
    silent="It shows at the end of the epoch, on the rank that still has some.",
    repair="Drop the rest, or go through the batches inside of Join.",
    reference="PyTorch, Distributed Training with Uneven Inputs Using the Join Context Manager",
)

cause(
    "C224",
    "rank-raises-alone",
    area="distributed",
    title="The code raises on a rank",
    looks={"rank-raises": ALWAYS},
    silent="The other ranks wait for it.",
    repair="Mend what the message names; run that rank's share on one process.",
    reference="the traceback",
)

cause(
    "C225",
    "sum-averaged-over-ranks",
    area="distributed",
    title="A loss that sums over the samples is averaged over the ranks",
    looks={"summed-loss-averaged": ALWAYS},
    silent="The more devices, the smaller the step.",
    repair="Multiply the summed loss by the number of ranks, or take a mean over all samples.",
    reference=DESIGN,
)

cause(
    "C226",
    "divided-by-ranks-twice",
    area="distributed",
    title="The gradient is divided by the number of ranks twice",
    looks={"averaged-twice": ALWAYS},
    silent="The more devices, the smaller the step.",
    repair="Leave the division to DistributedDataParallel.",
    reference=DESIGN,
)

cause(
    "C227",
    "shares-count-alike",
    area="distributed",
    title="Ranks that hold different numbers of samples or tokens count the same",
    looks={"shares-weighted-equally": ALWAYS},
    silent="With batches of one size it is right.",
    repair="Divide every rank's sum by the samples or tokens of all ranks, and multiply it by "
    "the number of ranks.",
    reference=DESIGN,
)

cause(
    "C228",
    "gradient-depends-on-ranks",
    area="distributed",
    title="The exchanged gradient is neither a sum nor a mean of the ranks' own",
    looks={"gradient-not-of-one-process": ALWAYS},
    silent="It is equal on all ranks.",
    repair="Look at what is done to the gradient between backward() and step(), and what asks for "
    "the rank.",
    reference=DESIGN,
)

cause(
    "C229",
    "ranks-share-their-noise",
    area="distributed",
    title="All ranks draw the same random numbers",
    looks={"ranks-draw-the-same": ALWAYS},
    silent="Equal initial weights need an equal seed; dropout and augmentation don't.",
    repair="Seed with the rank added, once the model is built.",
    reference="PyTorch, Reproducibility",
)
