"""Names of operations of PyTorch, by what they do to a prediction on its way into the loss."""

import torch

# fmt: off
LOSSES = frozenset({
    "cross_entropy", "nll_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits",
    "kl_div", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "gaussian_nll_loss",
    "poisson_nll_loss", "multilabel_soft_margin_loss", "soft_margin_loss", "ctc_loss",
    "multi_margin_loss", "multilabel_margin_loss",
})
COMPARISONS = frozenset({"sub", "rsub", "subtract", "dist", "cdist", "pairwise_distance"})
ACTIVATIONS = frozenset({
    "softmax", "log_softmax", "sigmoid", "logsigmoid", "tanh", "relu", "relu6", "hardtanh",
    "hardsigmoid", "softplus", "clamp", "dropout", "dropout1d", "dropout2d", "dropout3d",
    "alpha_dropout",
})
RESHAPES = frozenset({
    "view", "reshape", "flatten", "squeeze", "unsqueeze", "transpose", "permute", "contiguous",
    "swapaxes", "movedim", "t", "mT", "float", "double", "to", "clone", "type", "expand",
    "expand_as", "getitem", "unflatten", "select", "view_as", "reshape_as",
})
# Real parts that become one tensor or several: each number is still what its activation gave.
JOINS = frozenset({
    "complex", "view_as_complex", "view_as_real", "stack", "cat", "chunk", "split", "unbind",
})
HALF = frozenset({torch.float16, torch.bfloat16})
SUMS = frozenset({
    "sum", "mean", "nansum", "nanmean", "norm", "vector_norm", "linalg_vector_norm", "dot", "vdot",
    "inner", "logsumexp",
})
FLAT = frozenset({"round", "floor", "ceil", "trunc", "sign", "heaviside", "fix"})
# Infinities on purpose, gradients that are read (backward made them), memory not written to yet.
PLACED = frozenset({
    "masked_fill", "full", "tensor", "full_like", "where", "triu", "tril", "fill_", "grad",
    "empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided",
})
# fmt: on
