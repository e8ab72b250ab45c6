"""Faults in the network, continued: initial weights and wiring."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ris_diag import Case
from tests.faults.registry import (
    DEEPCRIME,
    OVERFLOW,
    RECIPE,
    SILENT,
    TAXONOMY,
    fault,
)
from tests.faults.zoo_grounds import (
    Tracker,
    TwoSensors,
    Variational,
    autoencoder,
    four_classes,
    padded_walks,
    plain_regression,
    stripes,
    three_tags,
    two_sensors,
    two_tasks,
    variational,
)
from tests.faults.zoo_parts import conv_net, mlp

# ---- initial weights


def _scaled(network: nn.Module, std: float) -> nn.Module:
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=std)
    return network


@fault(
    "L033",
    "G015",
    says="start with weights that blow their signal up",
    cause="initial-scale-wrong",
    healthy=four_classes,
    source=f"{DEEPCRIME}, WCI",
)
def initial_weights_of_ten() -> Case:
    def model() -> nn.Module:
        return _scaled(mlp(8, 32, 4), 10.0)  # planted: initial_weights_of_ten

    return replace(four_classes(), model=model)


@fault(cause="initial-scale-wrong", healthy=stripes, source=f"{DEEPCRIME}, WCI")
def initial_weights_of_a_ten_thousandth() -> Case:
    def model() -> nn.Module:
        network = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 32),
            nn.ReLU(), nn.Linear(32, 3),
        )  # fmt: skip
        return _scaled(network, 1e-4)  # planted: initial_weights_of_a_ten_thousandth

    return replace(stripes(), model=model)


@fault(cause="units-start-alike", healthy=plain_regression, source=f"{DEEPCRIME}, WCI")
def layers_of_equal_units() -> Case:
    def model() -> nn.Module:
        network = mlp(8, 32, 1)
        for parameter in network.parameters():
            nn.init.constant_(parameter, 0.05)  # planted: layers_of_equal_units
        return network

    return replace(plain_regression(), model=model)


@fault(cause="all-weights-zero", healthy=stripes, source=f"{DEEPCRIME}, WCI")
def convolutions_start_at_zero() -> Case:
    def model() -> nn.Module:
        network = conv_net()
        for parameter in network.parameters():
            nn.init.zeros_(parameter)  # planted: convolutions_start_at_zero
        return network

    return replace(stripes(), model=model)


# ---- wiring


@fault(
    "L032",
    says="the predictions of 14 samples differ by",
    cause="input-ignored",
    healthy=padded_walks,
    source=OVERFLOW,
)
def input_is_overwritten() -> Case:
    class Blank(Tracker):
        def forward(self, x: Tensor) -> Tensor:
            x = torch.zeros_like(x)  # planted: input_is_overwritten
            return super().forward(x)

    return replace(padded_walks(), model=Blank)


@fault(cause="input-ignored", healthy=two_sensors, source=TAXONOMY)
def second_sensor_is_not_read() -> Case:
    class Single(TwoSensors):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            output: Tensor = self.joint(torch.cat([a, a], 1))  # planted: second_sensor_is_not_read
            return output

    return replace(two_sensors(), model=Single)


@fault(cause="graph-is-cut", place=("here", "encoder"), healthy=variational, source=SILENT)
def code_is_sampled_without_a_path() -> Case:
    class Sampled(Variational):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            mean, log_variance = self.encode(x)
            code: Any = torch.distributions.Normal(mean, (log_variance / 2).exp())
            # planted: code_is_sampled_without_a_path
            return self.decoder(code.sample()), mean, log_variance

    return replace(variational(), model=Sampled)


@fault(cause="graph-is-cut", place=("here", "0"), healthy=stripes, source=RECIPE)
def features_are_computed_without_gradient() -> Case:
    class Extracted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = conv_net()
            self.body, self.head = layers[:6], layers[6:]

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():  # planted: features_are_computed_without_gradient
                features = self.body(x)
            logits: Tensor = self.head(features)
            return logits

    return replace(stripes(), model=Extracted)


@fault(cause="parameter-not-registered", healthy=two_tasks, source=OVERFLOW)
def heads_in_a_plain_dict() -> Case:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Sequential(nn.Linear(8, 32), nn.ReLU())
            # planted: heads_in_a_plain_dict
            self.heads = {"number": nn.Linear(32, 1), "kind": nn.Linear(32, 3)}

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            hidden = self.trunk(x)
            return {name: head(hidden) for name, head in self.heads.items()}

    return replace(two_tasks(), model=Heads)


@fault(cause="module-never-used", place=("here", "second"), healthy=three_tags, source=TAXONOMY)
def one_norm_is_called_twice() -> Case:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.entry, self.exit = nn.Linear(8, 24), nn.Linear(24, 3)
            self.first, self.second = nn.LayerNorm(24), nn.LayerNorm(24)

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.first(F.relu(self.entry(x)))
            logits: Tensor = self.exit(self.first(hidden))  # planted: one_norm_is_called_twice
            return logits

    return replace(three_tags(), model=Normed)


@fault(cause="batch-norm-statistics", healthy=stripes, source=SILENT)
def statistics_stay_at_their_start() -> Case:
    def model() -> nn.Module:
        network = conv_net()
        network[1] = nn.BatchNorm2d(8, momentum=0.0)  # planted: statistics_stay_at_their_start
        return network

    return replace(stripes(), model=model)


@fault(cause="capacity-too-small", healthy=autoencoder, source=f"{DEEPCRIME}, ANN")
def bottleneck_of_one() -> Case:
    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(12, 1), nn.Linear(1, 12))  # planted: bottleneck_of_one

    return replace(autoencoder(), model=model)


@fault(cause="noise-at-inference", healthy=variational, source=SILENT)
def code_is_drawn_at_inference() -> Case:
    def predict(model: nn.Module, batch: Tensor) -> Tensor:
        output: Tensor = model(batch)[0]  # planted: code_is_drawn_at_inference
        return output

    return replace(variational(), predict=predict)
