"""Operations: cuts, device-less factories and syncs, each with its line of this file."""

import inspect

import torch
from torch import nn

from ris_diag.operations import Operations


def line_of(text: str) -> str:
    lines = inspect.getsource(inspect.getmodule(line_of) or inspect).splitlines()
    number = next(k for k, line in enumerate(lines, 1) if text in line and "line_of" not in line)
    return f"tests/ris_diag/test_operations.py:{number}"


def test_a_cut_names_operation_place_and_what_lies_behind_it() -> None:
    layer = nn.Linear(3, 2)
    with Operations() as seen:
        hidden = layer(torch.ones(1, 3))
        frozen = hidden.detach()  # the cut
        (frozen * 2).sum()
    assert [(cut.name, cut.place) for cut in seen.cuts] == [("detach()", line_of("# the cut"))]
    assert seen.cuts[0].behind == {id(p) for p in layer.parameters()}


def test_no_grad_is_a_cut_at_every_layer() -> None:
    layer = nn.Linear(3, 2)
    with Operations() as seen, torch.no_grad():
        layer(torch.ones(1, 3))
    assert [cut.name for cut in seen.cuts] == ["linear() under no_grad"]


def test_a_whole_step_without_cuts() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Dropout(0.1), nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(model.parameters())
    with Operations() as seen:
        loss = nn.functional.mse_loss(model(torch.ones(2, 3, device="cpu")), torch.zeros(2, 1))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    behind_the_loss = [cut for cut in seen.cuts if cut.behind and "clip" not in cut.place]
    assert not [cut for cut in behind_the_loss if "mse" in cut.name or "linear" in cut.name]
