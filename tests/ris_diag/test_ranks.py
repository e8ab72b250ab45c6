"""The ranks: results of all as one, waits with a name, a world of one, one report of a launch."""

import json
import os
import re
import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import ris_diag
from ris_diag import Case, CaseError, Result
from ris_diag.check import all_checks
from ris_diag.checks.ranks_gradient import relative, shares_of
from ris_diag.context import Subject
from ris_diag.gate import reasons_against
from ris_diag.marks import differing, digests, mark, sample_rows
from ris_diag.one_process import _joined
from ris_diag.ranks import Outcome, Ranks
from ris_diag.replica import Portion
from ris_diag.replicas import launched
from ris_diag.result import Finding
from ris_diag.shared import shared_result
from ris_diag.stuck import _collective, _position
from ris_diag.wrapped import plain_names
from tests.faults.ranked_parts import plain_ddp

ROOT = Path(__file__).resolve().parents[2]
OF_RANKS = [check.id for check in all_checks() if "ranks" in check.needs]


class Told(Ranks):
    """Ranks of which the others' answers are known."""

    def __init__(self, *others: Any) -> None:
        super().__init__(store=None, rank=0, size=1 + len(others))
        self.others = others

    def share(self, name: str, value: Any, *, spent: float = 0.0) -> list[Any]:
        return [value, *self.others]


def result(status: Any, *findings: tuple[str, str, str], **parts: Any) -> Result:
    found = [Finding(sign=s, cause=c, place=p, next_step="mend") for s, c, p in findings]
    return Result(
        id="L001",
        slug="one-batch-learns",
        family="litmus",
        title="",
        status=status,
        findings=found,
        cause="; ".join(finding["cause"] for finding in found),
        **parts,
    )


# ---- without other processes


@pytest.mark.parametrize("check", OF_RANKS)
def test_a_check_of_ranks_says_how_they_are_started(check: str) -> None:
    skipped = ris_diag.run(plain_ddp(), select=check)[check]
    assert skipped.status == "skip"
    assert skipped.cause == "does not apply: needs torchrun --nproc-per-node=2"
    assert not skipped.exempt


@pytest.mark.parametrize("check", OF_RANKS)
def test_a_training_in_one_process_is_not_meant_for_it(check: str) -> None:
    skipped = ris_diag.run(Case(name="one"), select=check)[check]
    assert skipped.cause.startswith("does not apply: needs Case.distributed, torchrun")
    assert skipped.exempt == "trains in one process"
    assert not any(check in reason for reason in reasons_against([skipped]))


def test_the_gate_stays_closed_for_ranks_that_were_not_started() -> None:
    skipped = ris_diag.run(plain_ddp(), select="L061").results
    assert any("L061 does not apply" in reason for reason in reasons_against(skipped))


def test_the_part_is_a_function() -> None:
    with pytest.raises(CaseError, match="distributed must be callable, not 3"):
        Case(name="wrong", distributed=3)  # type: ignore[arg-type]  # what is tested


# ---- one result of all ranks


def test_what_all_ranks_find_is_told_once() -> None:
    own = result("fail", ("cut", "no gradient", "a.py:1"))
    told = shared_result(Told(own.to_json()), own)
    assert (told.status, told.cause, told.findings) == ("fail", "no gradient", own.findings)


def test_what_one_rank_finds_names_it() -> None:
    other = result("error", ("raises", "ValueError: no data", "a.py:1"))
    told = shared_result(Told(other.to_json()), result("pass"))
    assert told.status == "error"
    assert told.cause == "rank 1 alone: ValueError: no data"
    assert told.place == "a.py:1"


def test_findings_of_different_ranks_stand_beside_each_other() -> None:
    own = result("fail", ("cut", "no gradient", "a.py:1"), ("cut", "none here", "b.py:2"))
    other = result("fail", ("cut", "no gradient", "a.py:1"), ("odd", "eps 1", "c.py:3"))
    told = shared_result(Told(other.to_json()), own)
    assert told.cause == "no gradient; rank 0 alone: none here; rank 1 alone: eps 1"


def test_a_pass_of_all_is_that_of_rank_0() -> None:
    own = result("pass", lines=["rank 0"])
    assert shared_result(Told(result("pass", lines=["rank 1"]).to_json()), own).lines == ["rank 0"]


def test_an_exception_of_one_rank_is_known_to_all() -> None:
    def part() -> None:
        raise ValueError("no data\nand more")

    own, other = Told(vars(Outcome(value=3))).each("part", part)
    assert own.raised == "ValueError: no data"
    assert re.fullmatch(r"tests/ris_diag/test_ranks.py:\d+, in part", own.place)
    assert other == Outcome(value=3)


def test_a_time_that_is_up_is_a_wait_and_no_mistake_of_the_code() -> None:
    def part() -> None:
        raise RuntimeError("[gloo/unbound_buffer.cc:84] Timed out waiting 3000ms for recv")

    (own,) = Told().each("part", part)
    assert own.waited == "a collective"
    assert own.said().startswith("waited in a collective at tests/ris_diag/test_ranks.py:")


def refuse() -> None:
    raise CaseError("no such case")


def test_the_same_part_raises_everywhere_or_nowhere() -> None:
    assert Told(vars(Outcome())).same("the case", lambda: 5) == 5
    with pytest.raises(CaseError, match=r"^no such case$"):
        Told(vars(Outcome(raised="CaseError: no such case"))).same("the case", refuse)
    with pytest.raises(CaseError, match="rank 1: OSError: no such file"):
        Told(vars(Outcome(raised="OSError: no such file"))).same("the case", lambda: 5)


def test_what_is_no_plain_data_is_not_shared() -> None:
    with pytest.raises(TypeError, match="is no plain data"):
        Ranks(store=None, rank=0, size=2).share("tensor", torch.ones(1))


# ---- places

USER, TORCH = str(ROOT / "train.py"), "/lib/site-packages/torch"


def test_a_collective_is_named_by_what_the_user_called() -> None:
    for path, name, shown in (
        ("distributed/distributed_c10d.py", "all_reduce", "all_reduce()"),
        ("nn/parallel/distributed.py", "forward", "DistributedDataParallel.forward()"),
        ("nn/parallel/distributed.py", "__init__", "DistributedDataParallel()"),
        ("_tensor.py", "backward", "backward()"),
        ("nn/functional.py", "linear", ""),
    ):
        frames = [(USER, 31, "step"), (f"{TORCH}/{path}", 5, name), (f"{TORCH}/x.py", 6, "y")]
        assert _collective(frames) == shown
        assert _position(frames) == f"in {shown} at train.py:31, in step".replace("in  ", "")


def test_a_rank_outside_of_the_users_code_is_said_to_be_there() -> None:
    assert _position([(f"{TORCH}/x.py", 6, "y")]) == "outside of the case's code"


# ---- numbers


def test_marks_tell_tensors_apart() -> None:
    a, b = torch.tensor([3.0, 4.0]), torch.tensor([4.0, -3.0])
    assert mark(a) == [5.0, 7.0]
    assert differing([{"w": mark(a)}, {"w": mark(a)}], 1e-5) == {}
    assert differing([{"w": mark(a)}, {"w": mark(b)}], 1e-5) == {"w": pytest.approx(6 / 5)}
    assert differing([{"w": mark(a)}, {"w": None}], 1e-5) == {"w": torch.inf}
    assert differing([{"w": None}, {"w": None}], 1e-5) == {}
    assert differing([{"w": ["NaN", "NaN"]}, {"w": ["NaN", "NaN"]}], 1e-5) == {}


def test_samples_have_the_same_number_in_every_process() -> None:
    batch = {
        "x": torch.arange(6.0).reshape(3, 2),
        "y": torch.tensor([1, 0, 1]),
        "t": torch.ones(()),
    }
    numbers = digests(batch)
    assert len(set(numbers)) == 3
    assert numbers[0] == 184163187958524  # by no hash that Python seeds
    assert digests({**batch, "y": torch.tensor([1, 0, 0])})[:2] == numbers[:2]
    assert list(sample_rows(batch)) == [0, 1]


def test_batches_of_ranks_are_joined_row_by_row() -> None:
    one = {"x": torch.zeros(2, 3), "scale": torch.ones(()), "k": (torch.tensor([1, 2]),)}
    two = {"x": torch.ones(1, 3), "scale": torch.zeros(()), "k": (torch.tensor([3]),)}
    joined = _joined([one, two])
    assert joined["x"].shape == (3, 3)
    assert joined["k"][0].tolist() == [1, 2, 3]
    assert joined["scale"] == 1.0


def test_names_are_those_without_the_wrapper() -> None:
    class Wrapped(DistributedDataParallel):
        def __init__(self, module: nn.Module) -> None:
            nn.Module.__init__(self)
            self.module = module

    whole = Wrapped(nn.Sequential(nn.Linear(2, 2)))
    part = nn.ModuleDict({"module": Wrapped(nn.Linear(2, 2)), "head": nn.Linear(2, 1)})
    assert list(plain_names(whole)) == ["0.weight", "0.bias"]
    names = ["module.weight", "module.bias", "head.weight", "head.bias"]
    assert list(plain_names(part)) == names


def test_a_portion_is_the_loader_but_for_its_end() -> None:
    class Loader(list[Tensor]):
        sampler = "the sampler"

    seen: list[int] = []
    loader = Loader([torch.tensor([k]) for k in range(5)])
    portion = Portion(loader, 3, torch.device("cpu"), lambda number, batch: seen.append(number))
    assert [int(batch) for batch in portion] == [0, 1, 2]
    assert (len(portion), portion.sampler, seen) == (3, "the sampler", [0, 1, 2])
    with pytest.raises(AttributeError):
        portion.dataset  # noqa: B018  # it has none


def test_a_difference_is_relative_to_the_reference() -> None:
    assert relative(torch.tensor([1.0, 1.0]), torch.tensor([2.0, 2.0])) == pytest.approx(0.5)


def test_shares_are_the_weights_with_which_ranks_add_up() -> None:
    parts = [torch.tensor([1.0, 0.0, 2.0]), torch.tensor([0.0, 1.0, 1.0])]
    weights, rest = shares_of(0.75 * parts[0] + 0.25 * parts[1], parts)
    assert weights == pytest.approx([0.75, 0.25])
    assert rest < 1e-6
    assert shares_of(torch.tensor([1.0, 1.0, -3.0]), parts)[1] > 0.5


# ---- real launches of two processes


def torchrun(*command: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    start = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    environment = {"PYTHONPATH": f"{folder}:{ROOT}", "OMP_NUM_THREADS": "1", "PATH": ""}
    return subprocess.run(
        [*start, *command], cwd=folder, capture_output=True, text=True, check=False, env=environment
    )


CHECKED = ("-m", "ris_diag", "check", "-v", "--select", "L009,L06", "--case")


@pytest.mark.slow
def test_the_command_line_reports_once(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    run = torchrun(*CHECKED, "tests.faults.ranked_parts:plain_ddp", "--json", str(file))
    assert run.returncode == 0, run.stderr
    assert re.findall(r"^pass  (\w+)", run.stdout, re.MULTILINE) == ["L009", *OF_RANKS]
    assert json.loads(file.read_text())["ok"] is True


@pytest.mark.slow
def test_processes_that_were_started_by_hand_are_ranks_too() -> None:
    command = [sys.executable, *CHECKED, "tests.faults.ranked_parts:plain_ddp"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launch = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **launch, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0, 0], told
    assert told[0][0].count("pass  L061") == 1
    assert told[1] == ("", "")


@pytest.mark.slow
def test_a_fault_is_reported_once_with_the_command_that_repeats_it() -> None:
    run = torchrun(*CHECKED, "tests.faults.plant_distributed:model_is_not_wrapped")
    assert run.returncode == 1
    assert run.stdout.count("Diagnosis: C210 model-not-wrapped") == 1
    assert (
        "Reproduce: torchrun --nproc-per-node=2 -m ris_diag check --case "
        "tests.faults.plant_distributed:model_is_not_wrapped --select L061 --seed 0" in run.stdout
    )
    # torchrun ends the rank that is last to end by itself.
    codes = re.findall(r"exitcode  : (-?\d+)", run.stderr)
    assert {"1"} <= set(codes) <= {"1", "-15"}


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("case", ["plain_ddp", "sync_batch_norm", "averages_by_hand"])
def test_two_gpus_go_in_step(case: str) -> None:
    run = torchrun(*CHECKED, f"tests.faults.ranked_parts:{case}", "--gpu")
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_fault_is_found_on_two_gpus() -> None:
    run = torchrun(*CHECKED, "tests.faults.plant_ranks:loss_is_divided_by_the_ranks", "--gpu")
    assert "Diagnosis: C226 divided-by-ranks-twice" in run.stdout


def test_a_rank_takes_the_gpu_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    ranks = Ranks(store=None, rank=3, size=4)
    assert [ranks.own_device(name) for name in ("cpu", "cuda", "cuda:0")] == [
        "cpu",
        "cuda:1",
        "cuda:0",
    ]


def test_a_wrapper_waits_for_nothing_outside_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    told = [Outcome(value=3), Outcome(value=3)]
    alone = [
        Outcome(value={"seconds": 0.1, "unused": ["a", "b"]}),
        Outcome(value={"seconds": 0.2, "unused": []}),
    ]
    answers = iter([told, alone, [Outcome(value=["b", "c"])] * 2])
    ranks = Told(None)
    for name in ("together", "alone"):
        monkeypatch.setattr(ranks, name, lambda *seconds: nullcontext())
    monkeypatch.setattr(ranks, "each", lambda name, part: next(answers))
    case = plain_ddp()
    found = launched(Subject(case, torch.device("cpu"), 0, ranks=ranks))
    assert found.unused == [["b"], []]
    assert found.seconds == pytest.approx(30 / 3 + 20 * 0.2)
    assert found.replicas == []


BROKEN = """\
import os
from tests.faults.ranked_parts import plain_ddp

def case():
    if os.environ["RANK"] == "1":
        raise OSError("no such file")
    return plain_ddp()
"""


@pytest.mark.slow
def test_a_case_that_one_rank_cannot_load_is_one_refusal(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN, encoding="utf-8")
    run = torchrun(*CHECKED, "broken:case", folder=tmp_path)
    refusal = "Error: rank 1: CaseError: case target 'broken:case': case() raised OSError"
    assert run.stderr.count(refusal) == 1


STUCK = """\
import time
from dataclasses import replace
from ris_diag.check import select_checks
from ris_diag.ranks import launched_ranks
from ris_diag.runner import Runner
from tests.faults.ranked_parts import mse, plain_ddp, rank, trained, world

def fit(model, plan):
    if world() > 1 and rank() == 1:
        time.sleep(1000)
    return trained(model, plan, mse)

with launched_ranks(3.0) as ranks:
    Runner(replace(plain_ddp(), fit=fit), ranks=ranks).run(select_checks("L060"))
"""


@pytest.mark.slow
def test_a_rank_that_hangs_ends_all_with_one_report(tmp_path: Path) -> None:
    (tmp_path / "stuck.py").write_text(STUCK, encoding="utf-8")
    run = torchrun("stuck.py", folder=tmp_path)
    assert run.returncode == 1
    (report,) = re.findall(r"^L060 .*?as often as.*?$", run.stderr, re.MULTILINE | re.DOTALL)
    lines = report.splitlines()
    assert re.fullmatch(
        r"L060 ranks-go-in-step: no answer from rank 1 in \d+ s \(the wrapped loop\): all ranks "
        r"are ended",
        lines[0],
    )
    waited = r"  rank 0 waited in [\w.]+\(\) at .*ranked_parts.py:\d+, in \w+ until its time was up"
    assert re.fullmatch(waited, lines[1])
    assert lines[2] == "  rank 1 is at stuck.py:10, in fit"


SUITE = """\
import pytest
from tests.faults.ranked_parts import plain_ddp

@pytest.fixture(scope="session")
def ris_case():
    return plain_ddp()
"""


@pytest.mark.slow
def test_pytest_runs_in_every_rank(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(SUITE, encoding="utf-8")
    command = ["-m", "pytest", "--pyargs", "pytest_ris.suite", "-p", "no:randomly"]
    run = torchrun(*command, "--ris-select", "L009,L061,L064", folder=tmp_path)
    assert run.returncode == 0, run.stdout
    assert re.findall(r"(\d) passed", run.stdout) == ["3", "3"]


@pytest.mark.slow
def test_pytest_refuses_workers_beside_torchrun(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(SUITE, encoding="utf-8")
    run = torchrun("-m", "pytest", "--pyargs", "pytest_ris.suite", "-n", "2", folder=tmp_path)
    assert "ERROR: -n: torchrun has started the processes already" in run.stderr
