"""An operator's line to a running server: by a client certificate, with the server's errors as errors of ours.

The operator's file holds, in PEM, the private key, its certificate, and the authorities up to the root, which is the
last and by which the server is known. Whoever reads it acts as the operator, so only its owner may.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import grpc
from google.protobuf.message import Message

from ..sdk.identity import OperatorFile, OperatorFileUnusable
from ..sdk.server import PATIENCE, known

F = TypeVar("F", bound=Callable[..., Any])
DEFAULT_SERVER: Final = "127.0.0.1:7443"
FOLDER: Final = "operators"
PAGE: Final = 200
LONGEST: Final = 3600.0
"""Seconds for a call that is answered in parts."""


class ServerLine:
    """Calls to one server. ``folder``: the data folder that was named, or the usual one."""

    def __init__(self, channel: grpc.Channel, folder: Path | None = None) -> None:
        self.folder = folder or data_folder()
        self._channel = channel

    def call(self, method: Callable[[grpc.Channel], Any], request: Message, **metadata: str) -> Any:
        """The answer to a unary call: ``method`` gives the call of a stub, as ``lambda line: Stub(line).Find``.

        Names of metadata have hyphens for underscores. Raises RemoteError, ServerRefused, ServerUnreachable.
        """
        pairs = [(name.replace("_", "-"), value) for name, value in metadata.items()]
        try:
            return method(self._channel)(request, metadata=pairs, timeout=PATIENCE)
        except grpc.RpcError as error:
            raise known(error) from None

    def parts(self, method: Callable[[grpc.Channel], Any], request: Message) -> Iterator[Any]:
        """The answers to a call that is answered in parts, as they come. Raises as ``call``."""
        try:
            yield from method(self._channel)(request, timeout=LONGEST)
        except grpc.RpcError as error:
            raise known(error) from None

    def pages(self, method: Callable[[grpc.Channel], Any], request: Any, rows: str) -> Iterator[Any]:
        """Every entry of a listing, page by page; ``rows`` is the field of the answer. Raises as ``call``."""
        request.page_size = PAGE
        while True:
            answer = self.call(method, request)
            yield from getattr(answer, rows)
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token


def connected(function: F) -> F:
    """A command that talks to the server: it gets ``line`` in place of the options that say which, and as whom."""

    @click.option("--as", "identity", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
                  help="The operator's key and certificates (PEM), or their NAME in the data folder; else the only "
                       "ones there.")  # fmt: skip
    @click.option("--data", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
                  help="Data folder of the server, where --as looks.")  # fmt: skip
    @click.option("--server", "address", metavar="HOST:PORT",
                  help=f"The server's address; else what the data folder says, or {DEFAULT_SERVER}.")  # fmt: skip
    @wraps(function)
    def command(*args: Any, identity: Path | None, data: Path | None, address: str | None, **options: Any) -> Any:
        folder = data or data_folder()
        given = OperatorFile.read(operator_file(identity, folder))
        credentials = grpc.ssl_channel_credentials(given.root, given.key, given.chain)
        named = () if address else options_in(folder)
        with grpc.secure_channel(address or address_in(folder), credentials, named) as channel:
            return function(*args, line=ServerLine(channel, folder), **options)

    return command  # type: ignore[return-value]


def data_folder() -> Path:
    """``$XDG_DATA_HOME/cardwright/server``."""
    base = os.environ.get("XDG_DATA_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "share") / "cardwright" / "server"


def address_in(data: Path) -> str:
    """Where the server of a data folder listens for operators; the usual address where it does not say."""
    try:
        said = json.loads((data / "run" / "listening.json").read_bytes())["calls"]
    except (OSError, ValueError, LookupError, TypeError):
        return DEFAULT_SERVER
    host, _, port = str(said).rpartition(":")
    # It listens everywhere, so also here.
    return f"127.0.0.1:{port}" if host in ("0.0.0.0", "[::]") else str(said)


def options_in(data: Path) -> tuple[tuple[str, str], ...]:
    """Options of a channel to the server of a data folder on this host: its certificate need not name the loopback."""
    try:
        name = json.loads((data / "run" / "listening.json").read_bytes())["name"]
    except (OSError, ValueError, LookupError, TypeError):
        return ()
    return (("grpc.ssl_target_name_override", name),) if isinstance(name, str) and name else ()


def operator_file(given: Path | None, data: Path) -> Path:
    """The operator's file that is meant: a path, a name in the data folder, or the only one there.

    Raises OperatorFileUnusable.
    """
    if given is not None:
        named = data / FOLDER / f"{given}.pem"
        return named if given.name == str(given) and not given.exists() and named.exists() else given
    found = sorted((data / FOLDER).glob("*.pem"))
    if len(found) != 1:
        said = "several operators' files" if found else "no operator's file"
        raise OperatorFileUnusable(f"There are {said} in {data / FOLDER}.", advice="Say by --as which one to use.")
    return found[0]
