"""Signatures of receipts by OpenSSH: who holds a key vouches, a hash alone anybody can compute."""

import subprocess
import tempfile
from pathlib import Path

from ris_diag.errors import SignatureError

NAMESPACE = "ris-diag"


def sign(content: str, key: Path) -> str:
    """The signature of a content, made by `ssh-keygen -Y sign` with a private key.

    Raises:
        SignatureError: no ssh-keygen, no key, or one that it refuses.
    """
    if not key.is_file():
        raise SignatureError(f"--sign {key}: expected the file of a private key of OpenSSH")
    done = _ssh_keygen("sign", "-f", str(key), "-n", NAMESPACE, content=content)
    if done.returncode:
        raise SignatureError(f"--sign {key}: {_said(done)}")
    return done.stdout


def signer_problem(content: str, signature: object, signers: Path) -> str:
    """Why nobody in an allowed signers file vouches for a content; "" where somebody does.

    Raises:
        SignatureError: no ssh-keygen, or no file of signers.
    """
    if not signers.is_file():
        raise SignatureError(
            f"--signers {signers}: expected a file of allowed signers, as ssh-keygen reads it"
        )
    if not isinstance(signature, str):
        return "not signed: run the gate with --sign KEY"
    with tempfile.NamedTemporaryFile("w", suffix=".sig") as file:
        file.write(signature)
        file.flush()
        options = ("-s", file.name, "-f", str(signers))
        found = _ssh_keygen("find-principals", *options, content="")
        name = found.stdout.split("\n")[0].split(",")[0].strip()
        if found.returncode or not name:
            return f"signed by nobody in {signers} ({_said(found)})"
        done = _ssh_keygen("verify", *options, "-I", name, "-n", NAMESPACE, content=content)
    return f"the signature isn't that of this receipt ({_said(done)})" if done.returncode else ""


def _ssh_keygen(action: str, *options: str, content: str) -> subprocess.CompletedProcess[str]:
    command = ["ssh-keygen", "-Y", action, *options]
    try:
        return subprocess.run(  # noqa: S603  # no shell
            command, input=content, capture_output=True, check=False, text=True, errors="replace"
        )
    except FileNotFoundError as error:
        raise SignatureError(
            "signatures need ssh-keygen, which isn't installed: install OpenSSH's client (8.2 or "
            "newer), or leave --sign and --signers out"
        ) from error


def _said(done: subprocess.CompletedProcess[str]) -> str:
    said = (done.stderr or done.stdout).strip()
    return said.splitlines()[-1].strip() if said else f"ssh-keygen ended with {done.returncode}"
