"""Faults in the network."""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ris_diag import Case, Declared
from tests.faults.registry import (
    DEEPCRIME,
    OVERFLOW,
    RECIPE,
    SILENT,
    SLIPS,
    fault,
)
from tests.faults.zoo_grounds import (
    Tracker,
    TwoHeads,
    autoencoder,
    complex_regression,
    four_classes,
    next_token,
    padded_walks,
    plain_regression,
    stripes,
    three_tags,
    two_tasks,
    yes_or_no,
)
from tests.faults.zoo_loops import clipped_lstm
from tests.faults.zoo_parts import LanguageModel, LastState, conv_net, healthy, mlp

# ---- outputs


@fault(
    "L030",
    says="lie outside of what relu() in 5 (ReLU) can give",
    cause="output-cannot-reach-labels",
    healthy=plain_regression,
    source=f"{DEEPCRIME}, AAL",
)
def relu_behind_signed_numbers() -> Case:
    def model() -> nn.Module:
        return nn.Sequential(*mlp(8, 32, 1), nn.ReLU())  # planted: relu_behind_signed_numbers

    return replace(plain_regression(), model=model)


@fault(cause="output-cannot-reach-labels", healthy=padded_walks, source=f"{DEEPCRIME}, ACH")
def tanh_behind_sums_up_to_five() -> Case:
    class Bounded(Tracker):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).tanh()  # planted: tanh_behind_sums_up_to_five

    return replace(padded_walks(), model=Bounded)


@fault(cause="output-cannot-reach-labels", healthy=autoencoder, source=OVERFLOW)
def sigmoid_behind_signed_features() -> Case:
    def model() -> nn.Module:
        # planted: sigmoid_behind_signed_features
        decoder = nn.Sequential(*mlp(3, 32, 12), nn.Sigmoid())
        return nn.Sequential(mlp(12, 32, 3), decoder)

    return replace(autoencoder(), model=model)


class Paired(nn.Module):
    """Complex numbers from real ones: a real and an imaginary part each."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(12, 32, 8)

    def forward(self, x: Tensor) -> Tensor:
        return torch.complex(*self.parts(torch.view_as_real(x).flatten(1)).chunk(2, 1))

    def parts(self, x: Tensor) -> Tensor:
        output: Tensor = self.net(x)
        return output


@healthy
def complex_numbers_of_two_parts() -> Case:
    return replace(
        complex_regression(),
        name="complex_numbers_of_two_parts",
        model=Paired,
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=5e-3),
    )


@fault(cause="output-cannot-reach-labels", healthy=complex_numbers_of_two_parts, source=OVERFLOW)
def sigmoid_behind_both_parts() -> Case:
    class Bounded(Paired):
        def parts(self, x: Tensor) -> Tensor:
            return super().parts(x).sigmoid()  # planted: sigmoid_behind_both_parts

    return replace(complex_numbers_of_two_parts(), model=Bounded)


@healthy
def complex_tanh_at_the_end() -> Case:
    class Bent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(6, 16, dtype=torch.complex64)
            self.last = nn.Linear(16, 4, dtype=torch.complex64)

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.last(self.first(x).tanh())
            return output.tanh()

    return replace(complex_regression(), name="complex_tanh_at_the_end", model=Bent)


# ---- activations


@fault(
    "L031",
    says="have nothing between them (0 -> 1, 1 -> 2;",
    cause="no-activation-between-layers",
    healthy=plain_regression,
    source=f"{DEEPCRIME}, ARM",
)
def activation_is_forgotten() -> Case:
    def model() -> nn.Module:
        # planted: activation_is_forgotten
        return nn.Sequential(nn.Linear(8, 32), nn.Linear(32, 32), nn.Linear(32, 1))

    return replace(plain_regression(), model=model)


@fault(cause="no-activation-between-layers", healthy=two_tasks, source=f"{DEEPCRIME}, ARM")
def activation_is_not_called() -> Case:
    class Linear(TwoHeads):
        def __init__(self) -> None:
            super().__init__()
            # planted: activation_is_not_called
            self.trunk = nn.Sequential(nn.Linear(8, 32), nn.Identity())

    return replace(two_tasks(), model=Linear)


@fault(cause="dead-activations", place=("here", "1"), healthy=yes_or_no, source=RECIPE)
def relu_of_a_negative() -> Case:
    class Negative(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.entry, self.exit = nn.Linear(8, 24), nn.Linear(24, 1)

        def forward(self, x: Tensor) -> Tensor:
            hidden = F.relu(-F.relu(self.entry(x)))  # planted: relu_of_a_negative
            logits: Tensor = self.exit(hidden)
            return logits

    return replace(yes_or_no(), model=Negative)


@fault(
    "L034",
    says="take nearly everything (7: p = 0.95; limit 0.85)",
    cause="dropout-extreme",
    healthy=stripes,
    source=f"{DEEPCRIME}, RCD",
)
def dropout_of_95_percent() -> Case:
    def model() -> nn.Module:
        network = conv_net()
        network[7] = nn.Dropout(0.95)  # planted: dropout_of_95_percent
        return network

    return replace(stripes(), model=model)


@fault(cause="dropout-extreme", healthy=four_classes, source=OVERFLOW)
def share_to_keep_taken_for_share_to_drop() -> Case:
    class Dropped(nn.Module):
        def __init__(self, keep: float = 0.92) -> None:
            super().__init__()
            self.keep = keep
            self.entry, self.exit = nn.Linear(8, 32), nn.Linear(32, 4)

        def forward(self, x: Tensor) -> Tensor:
            hidden = F.relu(self.entry(x))
            # planted: share_to_keep_taken_for_share_to_drop
            hidden = F.dropout(hidden, self.keep, self.training)
            logits: Tensor = self.exit(hidden)
            return logits

    return replace(four_classes(), model=Dropped)


# ---- axes


@fault(cause=("softmax-over-wrong-axis", "samples-mix"), healthy=stripes, source=SILENT)
def softmax_over_the_batch() -> Case:
    class Probabilities(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = conv_net()

        def forward(self, x: Tensor) -> Tensor:
            return F.softmax(self.network(x), dim=0).log()  # planted: softmax_over_the_batch

    return replace(stripes(), model=Probabilities)


@fault(
    "L035",
    says="runs over an axis of length 1: it is constant",
    cause="softmax-over-wrong-axis",
    healthy=yes_or_no,
    source=OVERFLOW,
)
def softmax_over_one_class() -> Case:
    def model() -> nn.Module:
        return nn.Sequential(*mlp(8, 24, 1), nn.Softmax(dim=1))  # planted: softmax_over_one_class

    return replace(yes_or_no(), model=model)


class Attentive(nn.Module):
    """One head of attention over the steps of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(3, 16) for _ in range(3))
        self.head = nn.Sequential(nn.Linear(16 * 12, 32), nn.ReLU(), nn.Linear(32, 1))

    def scores(self, x: Tensor) -> Tensor:
        similar: Tensor = self.query(x) @ self.key(x).mT
        return similar / math.sqrt(16)

    def weights(self, x: Tensor) -> Tensor:
        return self.scores(x).softmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.weights(x) @ self.value(x)
        output: Tensor = self.head((mixed + self.value(x)).flatten(1))
        return output


@healthy
def attention() -> Case:
    case = clipped_lstm()
    return replace(
        case,
        name="attention",
        model=Attentive,
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=5e-3),
        step=None,
        declared=None,
    )


@fault(cause=("samples-mix", "softmax-over-wrong-axis"), healthy=attention, source=SILENT)
def attention_over_the_batch() -> Case:
    class Mixing(Attentive):
        def weights(self, x: Tensor) -> Tensor:
            return self.scores(x).softmax(0)  # planted: attention_over_the_batch

    return replace(attention(), model=Mixing)


@fault(
    cause="part-multiplied-by-zero",
    place=("here", "query.weight", "key.weight"),
    healthy=attention,
    source=OVERFLOW,
)
def whole_division_in_the_scale() -> Case:
    class Unscaled(Attentive):
        def scores(self, x: Tensor) -> Tensor:
            similar: Tensor = self.query(x) @ self.key(x).mT
            return similar * (1 // similar.shape[-1])  # planted: whole_division_in_the_scale

    return replace(attention(), model=Unscaled)


@fault(cause="samples-mix", healthy=three_tags, source=SLIPS)
def norm_of_the_whole_batch() -> Case:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = mlp(8, 24, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = x / x.norm() * 8**0.5  # planted: norm_of_the_whole_batch
            logits: Tensor = self.network(x)
            return logits

    return replace(three_tags(), model=Normalised)


@fault(cause="samples-mix", healthy=clipped_lstm, source=SLIPS)
def view_in_place_of_a_transpose() -> Case:
    class Viewed(LastState):
        def __init__(self) -> None:
            super().__init__(nn.LSTM)
            self.recurrent = nn.LSTM(3, 24)

        def forward(self, x: Tensor) -> Tensor:
            steps = x.reshape(x.shape[1], x.shape[0], -1)  # planted: view_in_place_of_a_transpose
            states, _ = self.recurrent(steps)
            output: Tensor = self.head(states[-1])
            return output

    return replace(clipped_lstm(), model=Viewed)


# ---- sequences


@fault(
    "L040", says="which are the labels", cause="sees-the-future", healthy=next_token, source=RECIPE
)
def causal_mask_is_missing() -> Case:
    class Unmasked(LanguageModel):
        def forward(self, x: Tensor) -> Tensor:
            hidden = self.embedding(x) + self.position[: x.shape[1]]
            logits: Tensor = self.head(self.encoder(hidden))  # planted: causal_mask_is_missing
            return logits

    return replace(next_token(), model=lambda: Unmasked(tied=True))


class Recurrent(nn.Module):
    """Names the next of 16 symbols."""

    def __init__(self, *, both: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(16, 24)
        # planted: recurrence_runs_in_both_directions
        self.cells = nn.GRU(24, 24, batch_first=True, bidirectional=both)
        self.head = nn.Linear(48 if both else 24, 16)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.cells(self.embedding(x))
        logits: Tensor = self.head(states)
        return logits


@healthy
def next_token_by_recurrence() -> Case:
    case = next_token()
    return replace(
        case, name="next_token_by_recurrence", model=Recurrent, declared=Declared(shift=1)
    )


@fault(cause="sees-the-future", healthy=next_token_by_recurrence, source=RECIPE)
def recurrence_runs_in_both_directions() -> Case:
    return replace(next_token_by_recurrence(), model=lambda: Recurrent(both=True))
