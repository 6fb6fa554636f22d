"""``cardwright server enrol-first``: the first administrator and the first security officer (S7)."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import click

from cardwright_cardops.errors import CardwrightError

from .output import json_option, say, show_json
from .server_admin_link import FOLDER, ServerLine, data_folder
from .server_operator_file import NewOperatorFile, plain
from .server_place import data_option

ROLES: Final = {"administrator": 1, "security-officer": 2}
LONGEST: Final = 200


class CredentialMissing(CardwrightError):
    """The credential of 'init' was not given."""

    code = "CREDENTIAL_MISSING"
    default_effect = "Nothing was sent to the server."
    default_advice = "Type what 'cardwright server init' printed, or give it by --credential-fd."


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

    from cardwright_proto.cms.v1 import system_pb2, system_pb2_grpc

    folder = data or data_folder()
    file = NewOperatorFile(out or folder / FOLDER / f"{plain(login)}.pem", request_file)
    with file.asking():
        credential = _credential(credential_fd)
        with grpc.insecure_channel(f"unix:{folder.absolute() / 'run' / 'server.sock'}") as channel:
            made = ServerLine(channel, folder).call(
                lambda line: system_pb2_grpc.SystemServiceStub(line).EnrolFirstOperator,
                system_pb2.EnrolFirstOperatorRequest(
                    credential=credential,
                    role=system_pb2.FirstRole.ValueType(ROLES[role]),
                    login=login,
                    display_name=name,
                    mail=mail,
                    certificate_request=file.request,
                ),
            )
    file.finish((made.certificate, *made.chain))
    if as_json:
        show_json({"operator": made.operator, "person": made.person, "role": role, "file": str(file.target)})
        return
    say(f"{login} is the first {role.replace('-', ' ')}.")
    say(f"{'Key and certificates are' if file.holds_key else 'The certificates are'} in {file.target}.")


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
