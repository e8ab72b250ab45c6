"""Faults in the loss."""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ris_diag import Case, Losses, Progress
from tests.faults.registry import (
    DEEPCRIME,
    OVERFLOW,
    SILENT,
    SLIPS,
    TAXONOMY,
    TRAINCHECK,
    fault,
)
from tests.faults.zoo_grounds import (
    Pair,
    autoencoder,
    complex_regression,
    divergence,
    four_classes,
    padded_walks,
    plain_regression,
    stripes,
    three_tags,
    two_tasks,
    variational,
    yes_or_no,
)
from tests.faults.zoo_parts import conv_net, mlp

Padded = dict[str, Tensor]


@fault(
    "G011",
    says="gets probabilities (between 0 and 1, each row sums to 1)",
    cause="normalised-outputs-into-loss",
    healthy=four_classes,
    source=SLIPS,
)
def softmax_in_front_of_cross_entropy() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        probabilities = model(x).softmax(1)
        return F.cross_entropy(probabilities, y)  # planted: softmax_in_front_of_cross_entropy

    return replace(four_classes(), loss=loss)


@fault(cause="normalised-outputs-into-loss", healthy=stripes, source=OVERFLOW)
def softmax_as_the_last_layer() -> Case:
    def model() -> nn.Module:
        return nn.Sequential(*conv_net(), nn.Softmax(1))  # planted: softmax_as_the_last_layer

    return replace(stripes(), model=model)


@fault(cause="normalised-outputs-into-loss", healthy=yes_or_no, source=OVERFLOW)
def sigmoid_in_front_of_bce_with_logits() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        p = torch.sigmoid(model(x).squeeze(1))
        # planted: sigmoid_in_front_of_bce_with_logits
        return F.binary_cross_entropy_with_logits(p, y)

    return replace(yes_or_no(), loss=loss)


@fault(cause="raw-outputs-into-loss", healthy=four_classes, source=SILENT)
def nll_loss_on_raw_logits() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        return F.nll_loss(model(x), y)  # planted: nll_loss_on_raw_logits

    return replace(four_classes(), loss=loss)


@fault(cause="raw-outputs-into-loss", healthy=stripes, source=SILENT)
def kl_div_without_the_logarithm() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        soft = 0.9 * F.one_hot(y, 3) + 0.1 / 3
        probabilities = model(x).softmax(1)
        # planted: kl_div_without_the_logarithm
        return F.kl_div(probabilities, soft, reduction="batchmean")

    return replace(stripes(), loss=loss)


@fault(cause="broadcast-in-loss", healthy=plain_regression, source=OVERFLOW)
def prediction_is_not_squeezed() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        error: Tensor = model(x) - y.squeeze(1)  # planted: prediction_is_not_squeezed
        return error.square().mean()

    return replace(plain_regression(), loss=loss)


@fault(
    "G012",
    says="10 of 11 samples of the prediction",
    cause="loss-ignores-predictions",
    healthy=plain_regression,
    source=SILENT,
)
def only_the_first_sample_counts() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        # planted: only_the_first_sample_counts
        return F.mse_loss(model(x), y, reduction="none")[0, 0]

    return replace(plain_regression(), loss=loss)


@fault(cause="loss-ignores-predictions", healthy=padded_walks, source=OVERFLOW)
def mask_is_inverted() -> Case:
    def loss(model: nn.Module, batch: Padded, progress: Progress) -> Tensor:
        error: Tensor = (model(batch["x"]) - batch["y"]).square().squeeze(-1)
        mask = ~batch["mask"]  # planted: mask_is_inverted
        return (error * mask).sum() / mask.sum()

    return replace(padded_walks(), loss=loss)


@fault(cause="loss-ignores-predictions", healthy=complex_regression, source="B2")
def only_the_real_part_counts() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        error: Tensor = model(x) - y
        return error.real.square().mean()  # planted: only_the_real_part_counts

    return replace(complex_regression(), loss=loss)


@fault(
    "G013",
    says="with the labels of other samples the loss is the same",
    cause="loss-ignores-target",
    healthy=yes_or_no,
    source="B2",
)
def target_is_not_used() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        logits = model(x).squeeze(1)
        real = torch.ones_like(y)
        return F.binary_cross_entropy_with_logits(logits, real)  # planted: target_is_not_used

    return replace(yes_or_no(), loss=loss)


@fault(cause="loss-ignores-target", healthy=plain_regression, source=OVERFLOW)
def compares_the_prediction_with_itself() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, _ = batch
        first = model(x)
        y = model(x + 0.1 * torch.randn_like(x))  # planted: compares_the_prediction_with_itself
        return F.mse_loss(first, y)

    return replace(plain_regression(), loss=loss)


@fault(cause="target-changed-in-loss", healthy=plain_regression, source=TAXONOMY)
def label_is_scaled_in_the_loss_alone() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        return F.mse_loss(model(x), y / 10)  # planted: label_is_scaled_in_the_loss_alone

    return replace(plain_regression(), loss=loss)


@fault(cause="target-changed-in-loss", healthy=complex_regression, source="B3")
def label_is_conjugated_in_the_loss() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        error: Tensor = model(x) - y.conj()  # planted: label_is_conjugated_in_the_loss
        return error.abs().square().mean()

    return replace(complex_regression(), loss=loss)


@fault(cause="target-changed-in-loss", healthy=autoencoder, source=OVERFLOW)
def reconstruction_of_reversed_features() -> Case:
    def loss(model: nn.Module, batch: Tensor, progress: Progress) -> Tensor:
        # planted: reconstruction_of_reversed_features
        return F.mse_loss(model(batch), batch.flip(1))

    return replace(autoencoder(), loss=loss)


@fault(cause="term-is-cut", place=("here", "kind"), healthy=two_tasks, source="B2")
def second_task_is_detached() -> Case:
    def loss(model: nn.Module, batch: Padded, progress: Progress) -> Losses:
        output = model(batch["x"])
        number = F.mse_loss(output["number"], batch["number"])
        # planted: second_task_is_detached
        kind = F.cross_entropy(output["kind"].detach(), batch["kind"])
        return Losses(total=number + 0.5 * kind, terms={"number": number, "kind": kind})

    return replace(two_tasks(), loss=loss)


@fault(cause="term-is-cut", place=("here", "kl"), healthy=variational, source=SILENT)
def divergence_is_a_number() -> Case:
    def loss(model: nn.Module, batch: Tensor, progress: Progress) -> Losses:
        output, mean, log_variance = model(batch)
        kl = torch.tensor(divergence(mean, log_variance).item())  # planted: divergence_is_a_number
        terms = {"fit": F.mse_loss(output, batch), "kl": kl}
        return Losses(total=terms["fit"] + 0.01 * terms["kl"], terms=terms)

    return replace(variational(), loss=loss)


@fault(
    cause=("term-missing-in-total", "loss-weight-not-in-effect"),
    place=("here", "kind"),
    healthy=two_tasks,
    source="B1",
)
def second_task_is_left_out() -> Case:
    def loss(model: nn.Module, batch: Padded, progress: Progress) -> Losses:
        output = model(batch["x"])
        number = F.mse_loss(output["number"], batch["number"])
        kind = F.cross_entropy(output["kind"], batch["kind"])
        # planted: second_task_is_left_out
        return Losses(total=number, terms={"number": number, "kind": kind})

    return replace(two_tasks(), loss=loss)


@fault(cause="term-missing-in-total", healthy=variational, source="B2")
def an_undeclared_term_is_added() -> Case:
    def loss(model: nn.Module, batch: Tensor, progress: Progress) -> Losses:
        output, mean, log_variance = model(batch)
        terms = {"fit": F.mse_loss(output, batch), "kl": divergence(mean, log_variance)}
        # planted: an_undeclared_term_is_added
        total = terms["fit"] + 0.01 * terms["kl"] + output.abs().mean()
        return Losses(total=total, terms=terms)

    return replace(variational(), loss=loss)


@fault(cause="loss-not-averaged", healthy=plain_regression, source=TAXONOMY)
def loss_is_summed() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        return F.mse_loss(model(x), y, reduction="sum")  # planted: loss_is_summed

    return replace(plain_regression(), loss=loss)


@fault(cause=("loss-arguments", "loss-ignores-predictions"), healthy=four_classes, source=TAXONOMY)
def class_weight_of_zero() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        weight = torch.tensor([1.0, 1.0, 1.0, 0.0])
        return F.cross_entropy(model(x), y, weight=weight)  # planted: class_weight_of_zero

    return replace(four_classes(), loss=loss)


@fault(cause=("loss-arguments", "loss-ignores-predictions"), healthy=stripes, source=OVERFLOW)
def ignores_a_class_that_is_real() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        return F.cross_entropy(model(x), y, ignore_index=0)  # planted: ignores_a_class_that_is_real

    return replace(stripes(), loss=loss)


@fault(cause="loss-arguments", healthy=four_classes, source=DEEPCRIME)
def smooths_the_labels_away() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        return F.cross_entropy(model(x), y, label_smoothing=1.0)  # planted: smooths_the_labels_away

    return replace(four_classes(), loss=loss)


@fault(cause="loss-does-not-fit-the-task", healthy=three_tags, source=OVERFLOW)
def cross_entropy_for_tags() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        return F.cross_entropy(model(x), y)  # planted: cross_entropy_for_tags

    return replace(three_tags(), loss=loss)


@fault(cause="loss-does-not-fit-the-task", healthy=four_classes, source=f"{DEEPCRIME}, LCH")
def squared_error_of_class_numbers() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        # planted: squared_error_of_class_numbers
        return F.mse_loss(model(x), y[:, None].float().expand(-1, 4))

    return replace(four_classes(), loss=loss)


@fault(
    "L042",
    says="and the error of the prediction rises",
    cause="wrong-sign",
    healthy=plain_regression,
    source=TAXONOMY,
)
def likelihood_without_its_minus() -> Case:
    def loss(model: nn.Module, batch: Pair, progress: Progress) -> Tensor:
        x, y = batch
        error: Tensor = model(x) - y
        return -error.square().mean() / 2  # planted: likelihood_without_its_minus

    return replace(plain_regression(), loss=loss)


@fault(
    cause=("wrong-sign", "loss-weight-out-of-range"),
    place=("here", "kl"),
    healthy=variational,
    source=OVERFLOW,
)
def divergence_is_subtracted() -> Case:
    def loss(model: nn.Module, batch: Tensor, progress: Progress) -> Losses:
        output, mean, log_variance = model(batch)
        terms = {"fit": F.mse_loss(output, batch), "kl": divergence(mean, log_variance)}
        # planted: divergence_is_subtracted
        return Losses(total=terms["fit"] - 0.01 * terms["kl"], terms=terms)

    return replace(variational(), loss=loss)


@fault(
    "L043",
    says="changes by -1.00 of what the gradient promises",
    cause="wrong-sign",
    healthy=four_classes,
    source=TRAINCHECK,
)
def a_hook_turns_gradients_round() -> Case:
    def model() -> nn.Module:
        network = mlp(8, 32, 4)
        for parameter in network.parameters():
            # planted: a_hook_turns_gradients_round
            parameter.register_hook(torch.neg)  # type: ignore[no-untyped-call]
        return network

    return replace(four_classes(), model=model)
