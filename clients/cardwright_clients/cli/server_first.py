"""``cardwright server enrol-first``: the first administrator and the first security officer (S7)."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from cardwright_cardops.errors import CardwrightError

from .files import read_bounded
from .output import json_option, say, show_json
from .server_admin_link import FOLDER, ServerLine, data_folder
from .server_place import data_option

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

ROLES: Final = {"administrator": 1, "security-officer": 2}
LONGEST: Final = 200
MAX_REQUEST: Final = 64 << 10


class CredentialMissing(CardwrightError):
    """The credential of 'init' was not given."""

    code = "CREDENTIAL_MISSING"
    default_effect = "Nothing was sent to the server."
    default_advice = "Type what 'cardwright server init' printed, or give it by --credential-fd."


class OperatorFileExists(CardwrightError):
    """There is a file of this operator already."""

    code = "OPERATOR_FILE_EXISTS"
    default_effect = "Nothing was sent to the server."
    default_advice = "Choose another name by --out."


@click.command("enrol-first")
@click.argument("role", type=click.Choice(list(ROLES)))
@click.option("--login", required=True, help="Login of the person.")
@click.option("--name", required=True, help="Name of the person, as people read it.")
@click.option("--mail", default="", help="Mail address of the person.")
@click.option("--request", "request_file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="A certificate request (PKCS #10) by the person's key; without it a key is made.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Where key and certificates go; without it operators/LOGIN.pem in the data folder.")  # fmt: skip
@click.option("--credential-fd", type=int, metavar="N", help="Read the credential from this descriptor.")
@data_option
@json_option
def command(
    role: str, login: str, name: str, mail: str, request_file: Path | None, out: Path | None, credential_fd: int | None,
    data: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Enrol the first administrator or the first security officer, on the server's own host.

    The server has to run, and the credential is what 'server init' printed: one for both, two different persons. The
    file that is written lets its owner act as the operator; give it to the person and keep no copy.
    """
    import grpc
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    from cardwright_proto.cms.v1 import system_pb2, system_pb2_grpc

    folder = data or data_folder()
    target = out or folder / FOLDER / f"{_plain(login)}.pem"
    if target.exists():
        raise OperatorFileExists(f"{target} is there already.")
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    credential = _credential(credential_fd)
    kept = target.with_name(target.name + ".key")
    key = None if request_file is not None else _key(kept)
    request = _request(key) if key is not None else _read_request(request_file)
    with grpc.insecure_channel(f"unix:{folder.absolute() / 'run' / 'server.sock'}") as channel:
        made = ServerLine(channel).call(
            lambda line: system_pb2_grpc.SystemServiceStub(line).EnrolFirstOperator,
            system_pb2.EnrolFirstOperatorRequest(
                credential=credential,
                role=system_pb2.FirstRole.ValueType(ROLES[role]),
                login=login,
                display_name=name,
                mail=mail,
                certificate_request=request,
            ),
        )
    certificates = [x509.load_der_x509_certificate(one) for one in (made.certificate, *made.chain)]
    content = b"".join(one.public_bytes(Encoding.PEM) for one in certificates)
    if key is not None:
        content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + content
    _write(target, content)
    kept.unlink(missing_ok=True)
    if as_json:
        show_json({"operator": made.operator, "person": made.person, "role": role, "file": str(target)})
        return
    say(f"{login} is the first {role.replace('-', ' ')}.")
    say(f"{'Key and certificates are' if key is not None else 'The certificates are'} in {target}.")


def _plain(login: str) -> str:
    """A login as a file's name."""
    return "".join(one if one.isascii() and (one.isalnum() or one in "-_@") else "-" for one in login)[:100] or "-"


def _credential(descriptor: int | None) -> str:
    if descriptor is not None:
        try:
            with os.fdopen(descriptor, "rb") as file:
                text = file.readline(LONGEST + 1).decode("ascii", "replace").strip()
        except OSError as error:
            raise CredentialMissing(f"Descriptor {descriptor} cannot be read: {error.strerror}.") from error
    elif sys.stdin is not None and sys.stdin.isatty():
        text = click.prompt("Credential", hide_input=True, err=True, default="", show_default=False).strip()
    else:
        raise CredentialMissing("Nobody can be asked for the credential.")
    if not 0 < len(text) <= LONGEST:
        raise CredentialMissing("There is no credential.")
    return text


def _key(path: Path) -> EllipticCurvePrivateKey:
    """A new key, written before the server hears of it: if the answer is lost, the same key is shown again."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )

    if path.exists():
        found = load_pem_private_key(read_bounded(path, MAX_REQUEST), None)
        if isinstance(found, ec.EllipticCurvePrivateKey):
            return found
    made = ec.generate_private_key(ec.SECP256R1())
    _write(path, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return made


def _request(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding

    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def _read_request(path: Path | None) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    assert path is not None
    raw = read_bounded(path, MAX_REQUEST)
    if not raw.lstrip().startswith(b"-----"):
        return raw
    try:
        return x509.load_pem_x509_csr(raw).public_bytes(Encoding.DER)
    except ValueError as error:
        raise click.BadParameter(f"{path} is no certificate request.") from error


def _write(path: Path, content: bytes) -> None:
    """A new file for its owner alone, whole or not at all."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    os.replace(temporary, path)
