"""The HSM backend: masters and signing keys never leave a PKCS#11 token.

The key file holds ids, rules and quotas, no secret; an AES-CMAC by a key of the HSM seals it. Each login is one
C_Login; a wrong PIN is never sent twice. When the module's process crashes it is started again, with the PIN that was
right before, once.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Final

import msgspec

from cardwright_cardops.pkcs11.channel import child_environment
from cardwright_cardops.secret import Secret

from .derivation import fields
from .document import Document, KeyFile, read_document
from .errors import HsmUnusable, VaultDamaged, VaultLocked, VaultRefused, VaultUnavailable, VaultUnlockRefused
from .hsm_messages import (
    MAX_REPLY,
    Cmac,
    Destroy,
    GenerateMaster,
    GenerateSigning,
    HsmReply,
    HsmRequest,
    Open,
    Sign,
)
from .messages import UNREADABLE
from .model import SigningAlgorithm

_ID: Final = 16
_TAG: Final = 16
_SECONDS: Final = 30.0
_GENERATION_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class HsmToken:
    """Which token: path of the PKCS#11 module, and the token's label. ``environment`` is added for the module."""

    module: Path
    label: str
    environment: Mapping[str, str] = field(default_factory=dict)


class _Gone(Exception):
    """The module's process ended, or was ended because it did not answer."""


class HsmBackend:
    """A ``Backend`` over one token."""

    name = "hsm"

    def __init__(self, token: HsmToken) -> None:
        """Nothing is started before the vault is made or unlocked."""
        self._token = token
        self._pin: Secret | None = None
        self._vault_id = ""
        self._seal = b""
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the module's process, None while locked."""
        return None if self._process is None else self._process.pid

    def create(self, vault_id: str, credential: bytes) -> None:
        """See ``Backend``: the token is there already, and its user PIN is the credential."""
        self._log_in(credential, spend_last_try=False)
        self._vault_id, self._seal = vault_id, self.new_master()

    def unlock(self, file: KeyFile, credential: bytes, *, spend_last_try: bool) -> Document:
        """See ``Backend``."""
        if file.backend != self.name or len(file.sealed) < _ID + _TAG:
            raise VaultDamaged("The key file belongs to another kind of vault.")
        self._log_in(credential, spend_last_try=spend_last_try)
        seal, tag, content = file.sealed[:_ID], file.sealed[_ID : _ID + _TAG], file.sealed[_ID + _TAG :]
        try:
            if not hmac.compare_digest(self.cmac(seal, fields(file.header, content)), tag):
                raise VaultDamaged("The seal of the key file is not this HSM's.")
            document = read_document(content)
        except (VaultDamaged, VaultUnavailable):
            self.lock()
            raise
        self._vault_id, self._seal = file.vault_id, seal
        return document

    def lock(self) -> None:
        """See ``Backend``: the module's process ends, and with it the login."""
        self._stop()
        if self._pin is not None:
            self._pin.wipe()
        self._pin = None

    def knows(self, credential: bytes) -> bool:
        """See ``Backend``; the HSM is not asked."""
        return self._pin is not None and hmac.compare_digest(self._pin.reveal(), credential)

    def seal(self, document: Document) -> KeyFile:
        """See ``Backend``."""
        file = KeyFile(backend=self.name, vault_id=self._vault_id, sealed=b"")
        content = msgspec.msgpack.encode(document)
        tag = self.cmac(self._seal, fields(file.header, content))
        return msgspec.structs.replace(file, sealed=self._seal + tag + content)

    def new_master(self) -> bytes:
        """See ``Backend``; the material is the key's CKA_ID."""
        name = os.urandom(_ID)
        self._ask(GenerateMaster(name))
        return name

    def cmac(self, material: bytes, data: bytes) -> bytes:
        """See ``Backend``."""
        return self._ask(Cmac(material, data))

    def new_signing_key(self, algorithm: SigningAlgorithm) -> tuple[bytes, bytes]:
        """See ``Backend``; the material is the CKA_ID."""
        name = os.urandom(_ID)
        return name, self._ask(GenerateSigning(name, algorithm), _GENERATION_SECONDS)

    def sign(self, material: bytes, algorithm: SigningAlgorithm, data: bytes) -> bytes:
        """See ``Backend``."""
        return self._ask(Sign(material, algorithm, data))

    def destroy(self, material: bytes) -> None:
        """See ``Backend``."""
        self._ask(Destroy(material))

    def change_credential(self, new: bytes) -> None:
        """See ``Backend``."""
        raise VaultRefused("hsm", "The PIN of an HSM is changed with the HSM's own tools, while the vault is locked.")

    def export(self, document: Document, passphrase: bytes) -> KeyFile:
        """See ``Backend``."""
        raise VaultRefused("hsm", "Keys do not leave an HSM; back it up with its own means, and copy the directory.")

    # The module's process.

    def _log_in(self, pin: bytes, *, spend_last_try: bool) -> None:
        """Start the module's process and log in, once. Raises VaultUnlockRefused, HsmUnusable."""
        self._stop()
        try:
            text = pin.decode()
        except UnicodeDecodeError:
            raise VaultUnlockRefused("The PIN is no text.") from None
        self._start()
        request = Open(str(self._token.module), self._token.label, text, spend_last_try)
        try:
            reply = self._exchange(request, _SECONDS)
        except _Gone:
            raise HsmUnusable(f"The HSM's module {self._token.module} ended or did not answer.") from None
        if not reply.fault:
            self._pin = Secret(pin)
            return
        self.lock()
        match reply.fault:
            case "pin":
                raise VaultUnlockRefused(f"The HSM refused the PIN ({reply.detail}).")
            case "last-try":
                raise VaultUnlockRefused(
                    "One try is left for the HSM's PIN, and it was not sent.", advice="Allow the last try expressly."
                )
        raise HsmUnusable(
            f"The HSM's token {self._token.label!r} cannot be used through {self._token.module} ({reply.detail})."
        )

    def _ask(self, request: HsmRequest, seconds: float = _SECONDS) -> bytes:
        if self._pin is None:
            raise VaultLocked("The vault is locked.")
        reply = None
        for attempt in range(2):
            with contextlib.suppress(_Gone):
                reply = self._exchange(request, seconds)
                break
            if attempt == 0:
                self._log_in_again()
        if reply is None:
            raise VaultUnavailable("The HSM's module ended or did not answer, twice.")
        if reply.fault:
            raise VaultUnavailable(f"The HSM refused ({reply.fault}: {reply.detail}).")
        return reply.body

    def _log_in_again(self) -> None:
        assert self._pin is not None
        try:
            self._log_in(self._pin.reveal(), spend_last_try=False)
        except VaultUnlockRefused as error:
            raise VaultLocked("The HSM does not take its PIN any more; the vault is locked.") from error

    def _start(self) -> None:
        ours, theirs = Pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "cardwright_server.vault.hsm_child", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                env=child_environment(self._token.environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        finally:
            theirs.close()
        self._pipe = ours

    def _exchange(self, request: HsmRequest, seconds: float) -> HsmReply:
        if self._pipe is None:
            raise _Gone
        try:
            self._pipe.send_bytes(msgspec.msgpack.encode(request))
            if self._pipe.poll(seconds):
                return msgspec.msgpack.decode(self._pipe.recv_bytes(MAX_REPLY), type=HsmReply)
        except (EOFError, OSError, *UNREADABLE):
            # As for a module that does not answer in time: its process is of no use any more.
            pass
        self._stop()
        raise _Gone

    def _stop(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()
            self._process = None
