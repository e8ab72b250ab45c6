"""Receipts that are signed by OpenSSH: who vouches, and who doesn't."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from ris_diag import receipt
from ris_diag.cli import main
from ris_diag.errors import SignatureError
from ris_diag.fingerprint import fingerprint
from tests.ris_diag.test_receipt import passed, problems, verdict

TARGET = "signed_of_mine:case"
needs_ssh = pytest.mark.skipif(
    shutil.which("ssh-keygen") is None, reason="ssh-keygen isn't installed: OpenSSH's client has it"
)


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "signed_of_mine.py").write_text(
        "import ris_diag\n\n\ndef case():\n    return ris_diag.Case(name='mine')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "signed_of_mine", raising=False)
    return tmp_path


def make_key(name: str) -> Path:
    """A new key, whose owner alone is in the file `name`.signers."""
    options = ["-q", "-t", "ed25519", "-N", "", "-C", f"{name}@example.com", "-f", name]
    subprocess.run(["ssh-keygen", *options], check=True)
    public = Path(f"{name}.pub").read_text()
    Path(f"{name}.signers").write_text(f'{name}@example.com namespaces="ris-diag" {public}')
    return Path(name)


def written(key: Path | None) -> Path:
    path = Path("receipt.json")
    receipt.write_receipt(path, verdict(passed()), fingerprint(TARGET), key=key)
    return path


def found(path: Path, signers: str | None = None) -> list[str]:
    return problems(path, target=TARGET, signers=None if signers is None else Path(signers))


@needs_ssh
def test_one_of_the_signers_must_have_signed_it() -> None:
    path = written(make_key("me"))
    make_key("other")
    assert found(path) == []
    assert found(path, "me.signers") == []
    (said,) = found(path, "other.signers")
    assert said.startswith("signed by nobody in other.signers (")
    assert found(written(None), "me.signers") == ["not signed: run the gate with --sign KEY"]


@needs_ssh
def test_a_signature_of_something_else_is_refused() -> None:
    """Whoever computes the hash anew can't sign anew."""
    path = written(make_key("me"))
    content = json.loads(path.read_text())
    signature = content.pop("signature")
    del content["sha256"]
    forged = {**receipt._sealed({**content, "verdict": "edited"}), "signature": signature}
    path.write_text(receipt._text(forged))
    assert found(path) == []
    (said,) = found(path, "me.signers")
    assert said.startswith("the signature isn't that of this receipt (")


@needs_ssh
@pytest.mark.parametrize("signature", ["", "no signature", None, 3, ["a"]])
def test_what_is_no_signature_is_refused(signature: object) -> None:
    path = written(make_key("me"))
    path.write_text(receipt._text({**json.loads(path.read_text()), "signature": signature}))
    assert found(path, "me.signers")


@needs_ssh
def test_a_key_that_can_not_sign_is_told_before_anything_runs() -> None:
    Path("bad").write_text("no key\n")
    Path("bad").chmod(0o600)
    for key in ("bad", "nowhere"):
        run = CliRunner().invoke(main, ["gate", "--case", TARGET, "--sign", key])
        assert run.exit_code == 2
        assert run.stdout == ""
        assert f"Error: --sign {key}: " in run.stderr
    assert run.stderr.splitlines()[-1] == (
        "Error: --sign nowhere: expected the file of a private key of OpenSSH"
    )
    assert not Path(".ris-diag/receipt.json").exists()


@needs_ssh
def test_the_command_line_signs_and_asks_for_signers() -> None:
    make_key("me")
    run = CliRunner().invoke(main, ["gate", "--case", TARGET, "--sign", "me"])
    assert run.exit_code == 1
    verify = ["verify", "--case", TARGET, "--signers"]
    run = CliRunner().invoke(main, [*verify, "me.signers"])
    assert "sign" not in run.output
    run = CliRunner().invoke(main, [*verify, "nobody"])
    assert run.exit_code == 2
    assert "--signers nobody: expected a file of allowed signers" in run.output


def test_without_ssh_keygen_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(None)
    Path("key").touch()
    monkeypatch.setenv("PATH", "")
    said = "signatures need ssh-keygen, which isn't installed"
    with pytest.raises(SignatureError, match=said):
        written(Path("key"))
    content = {**json.loads(path.read_text()), "signature": "one"}
    path.write_text(receipt._text(content))
    with pytest.raises(SignatureError, match=said):
        found(path, "key")
