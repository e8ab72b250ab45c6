"""Causes that lie in where tensors stand."""

from ris_diag.cause import ALWAYS, SOMETIMES, cause

SEMANTICS = "PyTorch documentation, CUDA semantics"
TUNING = "PyTorch documentation, Performance Tuning Guide"
FORUM = "Stack Overflow studies (Zhang et al., ISSTA 2018; Islam et al., ESEC/FSE 2019)"

cause(
    "C193",
    "constant-not-moved",
    area="device",
    title="A constant doesn't move to the GPU with the model",
    looks={"constant-not-moved": ALWAYS},
    silent="On the CPU everything stands in one place.",
    repair="register_buffer() in the module that uses it; for a constant of the loss, "
    ".to(x.device) where it is used.",
    reference=SEMANTICS,
)

cause(
    "C194",
    "tensor-made-on-cpu",
    area="device",
    title="A tensor is made in the step without naming the device",
    looks={"made-without-device": ALWAYS},
    silent="The default device is the CPU, and so is the one of the test.",
    repair="device=x.device, or x.new_zeros(), torch.zeros_like(x) and their kind.",
    reference=SEMANTICS,
)

cause(
    "C195",
    "numpy-array-on-cpu",
    area="device",
    title="A NumPy array becomes a tensor in the middle of a step",
    looks={"numpy-array-on-cpu": ALWAYS},
    silent="NumPy knows the CPU alone, and there it is right.",
    repair="Make it a buffer once: torch.as_tensor(array) in the constructor.",
    reference=SEMANTICS,
)

cause(
    "C196",
    "batch-left-behind",
    area="device",
    title="A part of the batch stays on the CPU",
    looks={"batch-not-moved": ALWAYS},
    silent="Inputs are moved, and the targets are only missed in the loss.",
    repair="Move all tensors of a batch in one place, or give it a method to(device).",
    reference=FORUM,
)

cause(
    "C197",
    "module-left-behind",
    area="device",
    title="A network beside the model is never moved",
    looks={"module-not-moved": ALWAYS},
    silent="model.to(device) reaches what is registered in it, nothing else.",
    repair="Register it in the model, or move it where the model is moved.",
    reference=FORUM,
    settles="L021 says whether its parameters should have been the model's own",
)

cause(
    "C198",
    "index-on-cpu",
    area="device",
    title="Entries of a tensor on the GPU are picked by an index of the CPU",
    looks={"index-on-cpu": ALWAYS},
    silent="It works, with a copy to the GPU in every step.",
    repair="Make the index where the tensor stands: torch.arange(n, device=x.device).",
    reference=TUNING,
)

cause(
    "C199",
    "moved-to-cpu",
    area="device",
    title="The step leaves the GPU by itself",
    looks={"moved-to-cpu": ALWAYS, "step-runs-through": SOMETIMES},
    silent="On the CPU, moving there changes nothing.",
    repair="Take cpu() and to('cpu') out of the step.",
    reference=SEMANTICS,
)

cause(
    "C200",
    "cuda-tensor-to-numpy",
    area="device",
    title="NumPy is given a tensor of the GPU",
    looks={"cuda-tensor-to-numpy": ALWAYS, "moved-to-cpu": SOMETIMES},
    silent="On the CPU the two share their memory.",
    repair="Stay in PyTorch within the step; .detach().cpu().numpy() is for behind it.",
    reference=SEMANTICS,
)

cause(
    "C201",
    "generator-on-cpu",
    area="device",
    title="Random numbers on the GPU are drawn from a generator of the CPU",
    looks={"generator-on-cpu": ALWAYS},
    silent="A generator without a device is one of the CPU.",
    repair="torch.Generator(device=x.device), or draw on the CPU and move what was drawn.",
    reference="PyTorch documentation, torch.Generator",
)

cause(
    "C202",
    "step-waits-for-device",
    area="device",
    title="The step waits for values from the GPU",
    looks={"step-runs-through": ALWAYS},
    silent="The results are right, and the GPU is idle for a part of every step.",
    repair="Keep the value a tensor: torch.where for an `if`, a factor for a mask; fetch it for "
    "the log behind the backward pass.",
    reference=TUNING,
)
