"""The observer sees what happens and leaves nothing behind."""

import threading

import pytest
import torch
from torch import nn
from torch.optim import optimizer as torch_optimizer

from ris_diag import observe
from ris_diag.observer import TrainingStopped


def train(model: nn.Module, steps: int, *, swallow: bool = False) -> list[float]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(steps):
        try:
            loss = model(torch.ones(2, 3)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        except Exception:
            if not swallow:
                raise
    return losses


def nothing_left_behind() -> bool:
    return (
        not torch_optimizer._global_optimizer_pre_hooks
        and not torch_optimizer._global_optimizer_post_hooks
        and torch.autograd.backward.__module__ == "torch.autograd"
    )


def test_sees_losses_steps_rates_and_gradients() -> None:
    model = nn.Linear(3, 1)
    with observe(model) as trace:
        losses = train(model, 3)
    assert trace.losses == losses
    assert [step.rates for step in trace.steps] == [[0.1]] * 3
    assert trace.names == ["weight", "bias"]
    assert [b.after.shape for b in trace.backward] == [(2,)] * 3
    assert trace.events == ["zero_grad", "backward", "step"] * 3
    assert nothing_left_behind()


def test_sees_norms_before_clipping() -> None:
    model = nn.Linear(3, 1)
    with observe(model) as trace:
        model(torch.full((2, 3), 100.0)).square().mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    assert float(trace.backward[0].after.max()) > 1.0


def test_a_missing_gradient_is_told_from_a_zero_one() -> None:
    model = nn.Linear(3, 1)
    model.bias.requires_grad_(False)
    with observe(model) as trace:
        model(torch.ones(2, 3)).square().mean().backward()
    assert float(trace.backward[0].after[0]) > 0
    assert float(trace.backward[0].after[1]) == -1
    assert trace.backward[0].reached == {0}


def test_counts_accumulated_backward_passes() -> None:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with observe() as trace:
        for _ in range(2):
            model(torch.ones(2, 3)).mean().backward()
            torch.autograd.backward(model(torch.ones(2, 3)).mean())
            optimizer.step()
    assert (len(trace.backward), len(trace.steps)) == (4, 2)


@pytest.mark.parametrize("swallow", [False, True])
def test_stops_after_the_asked_steps(swallow: bool) -> None:
    model = nn.Linear(3, 1)
    with observe(model, stop_after=2) as trace:
        train(model, 10, swallow=swallow)
    assert len(trace.steps) == 2
    assert nothing_left_behind()


def test_the_last_step_is_taken_before_the_stop() -> None:
    model = nn.Linear(3, 1)
    before = model.weight.detach().clone()
    with observe(model, stop_after=1):
        train(model, 10)
    assert not torch.equal(before, model.weight)


def test_a_thread_that_trains_is_stopped_without_a_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    hook = threading.excepthook
    with observe(stop_after=1) as trace:
        thread = threading.Thread(target=train, args=(nn.Linear(3, 1), 10))
        thread.start()
        thread.join()
    assert len(trace.steps) == 1
    assert capsys.readouterr().err == ""
    assert threading.excepthook is hook


def test_an_error_in_a_thread_is_still_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[type[BaseException] | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda ended: seen.append(ended.exc_type))

    def fail() -> None:
        raise ValueError

    with observe(stop_after=1):
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    assert seen == [ValueError]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_leaves_nothing_behind_after_an_error(error: type[BaseException]) -> None:
    with pytest.raises(error), observe(nn.Linear(3, 1)):
        raise error
    assert nothing_left_behind()


def test_does_not_catch_the_stop_of_an_outer_observer() -> None:
    with observe(stop_after=1) as outer, observe() as inner:
        train(nn.Linear(3, 1), 5)
    assert len(outer.steps) == 1  # it ends the loop before the inner one could note the step
    assert len(inner.backward) == 1
    with pytest.raises(TrainingStopped), observe():
        raise TrainingStopped


def test_training_is_the_same_watched_and_unwatched() -> None:
    results = []
    for watched in (True, False):
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
        if watched:
            with observe(model):
                train(model, 5)
        else:
            train(model, 5)
        results.append(model.weight.detach())
    assert torch.equal(*results)


def test_operations_on_request() -> None:
    model = nn.Linear(3, 1)
    with observe(model, operations=True) as trace:
        train(model, 1)
    assert trace.operations is not None
    assert [cut.name for cut in trace.operations.cuts] == ["detach()"]
    with observe(model) as trace:
        train(model, 1)
    assert trace.operations is None


@pytest.mark.parametrize("clips", [False, True])
def test_two_optimisers_of_one_scaler(clips: bool) -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 1)
    optimizers = [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in (first, second)]
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    with observe(nn.Sequential(first, second)) as trace:
        loss = second(first(torch.ones(2, 3))).square().mean()
        torch.autograd.backward(scaler.scale(loss))
        if clips:
            nn.utils.clip_grad_norm_(second.parameters(), 1e-3)
        for optimizer in optimizers:
            scaler.step(optimizer)
        scaler.update()
    assert ("clip scaled" in trace.events) == clips
    assert trace.losses == [pytest.approx(float(loss.detach()))]


def test_calls_and_modes_of_every_module() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    with observe(model) as trace:
        model(torch.ones(2, 3))
        with torch.no_grad():
            model.eval()(torch.ones(2, 3))
    assert {module: usage.calls for module, usage in trace.usage.items()} == {
        model: 2,
        model[0]: 2,
        model[1]: 2,
    }
    assert trace.usage[model[0]].modes == {("", True, True), ("", False, False)}
