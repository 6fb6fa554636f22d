"""An operator's line to a running server: by a client certificate, with the server's errors as errors of ours.

The operator's file holds, in PEM, the private key, its certificate, and the authorities up to the root, which is the
last and by which the server is known. Whoever reads it acts as the operator, so only its owner may.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import grpc
from google.protobuf.message import DecodeError, Message

from cardwright_cardops.errors import CardwrightError

from .files import read_bounded

F = TypeVar("F", bound=Callable[..., Any])
DEFAULT_SERVER: Final = "127.0.0.1:7443"
FOLDER: Final = "operators"
PATIENCE: Final = 60.0
"""Seconds for one call."""
MAX_FILE: Final = 256 * 1024
PAGE: Final = 200
_BEGIN: Final = b"-----BEGIN "
_END: Final = b"-----END "
_LINES: Final = b"-----"


class OperatorFileUnusable(CardwrightError):
    """The operator's file is not there, readable by others, or no key with its certificates."""

    code = "OPERATOR_FILE"
    default_effect = "Nothing was sent to the server."
    default_advice = "Give --as the file with the operator's key and certificates, readable by its owner only."


class ServerUnreachable(CardwrightError):
    """No server of this name and root answers, or the line to it was lost."""

    code = "SERVER_NOT_REACHED"
    default_effect = "Whether it was done is not known, if the line was lost in between."
    default_advice = "See that the server runs ('cardwright server status'), and that --server is its address."


class ServerRefused(CardwrightError):
    """The server refused a call. ``code`` is the server's own, ``status`` the name of the gRPC status."""

    code = "SERVER_CALL_REFUSED"
    default_effect = "Nothing was changed."
    default_advice = "See the server's log of this time."

    def __init__(self, message: str, *, status: str, code: str, effect: str | None, advice: str | None) -> None:
        super().__init__(message, effect=effect, advice=advice)
        self.status = status
        if code:
            vars(self)["code"] = code  # of this one error: the class stands for all that servers refuse


@dataclass(frozen=True, slots=True)
class OperatorFile:
    """PEM blocks: the key, the certificate with its chain, the root."""

    key: bytes = field(repr=False)
    chain: bytes
    root: bytes

    @classmethod
    def read(cls, path: Path) -> OperatorFile:
        """Raises OperatorFileUnusable, FileUnusable."""
        try:
            mode = path.stat().st_mode
        except OSError as error:
            raise OperatorFileUnusable(f"{path} cannot be read: {error.strerror}.") from error
        if stat.S_IMODE(mode) & 0o077:
            raise OperatorFileUnusable(f"{path} can be read by others than its owner.", advice="Run chmod 600 on it.")
        blocks = list(_blocks(read_bounded(path, MAX_FILE)))
        keys = [block for label, block in blocks if label.endswith(b"PRIVATE KEY")]
        certificates = [block for label, block in blocks if label == b"CERTIFICATE"]
        if len(keys) != 1 or len(certificates) < 2 or len(blocks) != 1 + len(certificates):
            raise OperatorFileUnusable(f"{path} does not hold one private key, its certificate and its authorities.")
        return cls(keys[0], b"".join(certificates[:-1]), certificates[-1])


class ServerLine:
    """Calls to one server. ``folder``: the data folder that was named, or the usual one."""

    def __init__(self, channel: grpc.Channel, folder: Path | None = None) -> None:
        self.folder = folder or data_folder()
        self._channel = channel

    def call(self, method: Callable[[grpc.Channel], Any], request: Message, **metadata: str) -> Any:
        """The answer to a unary call: ``method`` gives the call of a stub, as ``lambda line: Stub(line).Find``.

        Names of metadata have hyphens for underscores. Raises ServerRefused, ServerUnreachable.
        """
        pairs = [(name.replace("_", "-"), value) for name, value in metadata.items()]
        try:
            return method(self._channel)(request, metadata=pairs, timeout=PATIENCE)
        except grpc.RpcError as error:
            raise _known(error) from None

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
        with grpc.secure_channel(address or address_in(folder), credentials) as channel:
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


def _blocks(raw: bytes) -> Iterable[tuple[bytes, bytes]]:
    """PEM blocks with their labels; what stands between them is skipped."""
    label, lines = b"", list[bytes]()
    for line in raw.splitlines():
        if not label and line.startswith(_BEGIN) and line.endswith(_LINES):
            label, lines = line[len(_BEGIN) : -len(_LINES)], []
        if label:
            lines.append(line)
            if line == _END + label + _LINES:
                yield label, b"\n".join(lines) + b"\n"
                label = b""


def _known(error: Any) -> CardwrightError:
    """What the server said, or that it said nothing."""
    from google.rpc.error_details_pb2 import ErrorInfo  # type: ignore[import-untyped]
    from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

    told = str(error.details() or "")
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-status-details-bin":
            info = ErrorInfo()
            try:
                for detail in Status.FromString(value).details:
                    if detail.Unpack(info):
                        break
            except DecodeError:
                break
            if info.reason:
                effect, advice = info.metadata.get("effect", ""), info.metadata.get("advice", "")
                return ServerRefused(told, status=error.code().name, code=info.reason, effect=effect, advice=advice)
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        return ServerUnreachable("The server does not answer, or is not the one that the operator's file names.")
    return ServerRefused(told or "The server refused.", status=error.code().name, code="", effect=None, advice=None)
