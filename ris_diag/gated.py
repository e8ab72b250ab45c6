"""A gate that leaves a receipt: closed on disk from before its first check to its verdict."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ris_diag.errors import ReceiptError
from ris_diag.fingerprint import fingerprint, hashes
from ris_diag.gate import Verdict
from ris_diag.measure import listed
from ris_diag.receipt import FOLDER, make_folder, write_receipt
from ris_diag.runner import Runner

AT_WORK = "the gate is at work"


@dataclass(kw_only=True)
class Kept:
    """Where the receipt of a gate goes.

    Attributes:
        path: of the receipt; the folder of the default one is made.
        target: of the case.
        loaded_from: hashes of its source files from before it was imported.
        key: private key of OpenSSH to sign with.
        made_for: the fingerprint, from before the checks ran.
    """

    path: Path
    target: str
    loaded_from: Mapping[str, str]
    key: Path | None = None
    made_for: Mapping[str, Any] = field(default_factory=dict)

    def run(self, runner: Runner, run_gate: Callable[[], Verdict]) -> Verdict:
        """Run a gate and write its receipt: at first that of a run without an end.

        So a gate that is killed leaves a closed receipt, and a folder that can't be written or a
        key that can't sign is known before anything runs.

        Returns:
            The verdict; closed, whatever was found, if a source file changed meanwhile.

        Raises:
            ReceiptError: it can't be written. SignatureError: the key can't sign.
        """
        made_for = fingerprint(self.target, device=runner.device, case=runner.subject.case)
        self.made_for = made_for
        begun = replace(runner.report([]), complete=False)
        self._write(Verdict(ready=False, text=AT_WORK, report=begun), made_for)
        verdict = run_gate()
        changed = _edited(self.loaded_from, made_for["sources"])
        changed += _edited(made_for["sources"], hashes(self.target))
        if changed:
            names = listed(list(dict.fromkeys(changed)), 5)
            text = f"NOT READY: changed while the gate ran: {names}"
            verdict = replace(verdict, ready=False, text=text)
        self._write(verdict, made_for)
        return verdict

    def _write(self, verdict: Verdict, made_for: Mapping[str, Any]) -> None:
        try:
            if self.path.parent.name == FOLDER:
                make_folder(self.path.parent)
            write_receipt(self.path, verdict, made_for, key=self.key)
        except OSError as error:
            raise ReceiptError(
                f"the receipt {self.path}: {error.strerror}; --receipt FILE names another place"
            ) from error


def _edited(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Files that are gone or other than they were."""
    return [name for name in then if now.get(name) != then[name]]
