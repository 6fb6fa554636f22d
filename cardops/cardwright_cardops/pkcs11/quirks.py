"""What known modules do differently, as data. A module is known by the texts of C_GetInfo, never by its path."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from .values import ModuleInfo, User


class UnlockBy(Enum):
    """Which secret sets a new PIN over a locked one."""

    NOTHING = "nothing"
    SO_PIN = "so_pin"
    PUK = "puk"


@dataclass(frozen=True, slots=True)
class Quirks:
    """One module.

    ``writer`` is the user that writes objects. ``sparse`` asks for templates with nothing optional. ``so_login``,
    ``creates``, ``generates`` and the ``deletes_*`` are None where the module is not known. ``fixed_ids`` means that
    CKA_ID 1 to 24 are the PIV key references 9A, 9C, 9D, 9E, 82 to 95. ``overwrites_silently``: an object written
    over another one replaces it, key and certificate alike. ``shows_bare_keys``: keys without a certificate are
    listed. ``unflagged_derive``: keys on curves derive although CKA_DERIVE says no. ``stale_after_unlock``: PIN flags
    stay as they were after an unlock until the module is loaded anew. ``attestation_label`` begins the labels of
    certificates the module makes up when asked. ``why_not`` is the reason behind every False and None.
    """

    name: str
    manufacturer: str
    description: str = ""
    writer: User = User.USER
    unlock_by: UnlockBy = UnlockBy.NOTHING
    so_login: bool | None = None
    so_pin_changes: bool = False
    puk_changes: bool = False
    sparse: bool = False
    creates: bool | None = None
    generates: bool | None = None
    deletes_keys: bool | None = None
    deletes_certificates: bool | None = None
    fixed_ids: bool = False
    overwrites_silently: bool = False
    shows_bare_keys: bool = True
    unflagged_derive: bool = False
    stale_after_unlock: bool = False
    attestation_label: str = ""
    why_not: str = ""

    def knows(self, module: ModuleInfo) -> bool:
        """Whether this entry is about that module."""
        return module.manufacturer.startswith(self.manufacturer) and module.description.startswith(self.description)


SOFTHSM: Final = Quirks(
    name="softhsm2",
    manufacturer="SoftHSM",
    unlock_by=UnlockBy.SO_PIN,
    so_login=True,
    so_pin_changes=True,
    creates=True,
    generates=True,
    deletes_keys=True,
    deletes_certificates=True,
)

# C_DestroyObject of any object with a key's id deletes the certificate and leaves the key: keys are never deleted.
YKCS11: Final = Quirks(
    name="ykcs11",
    manufacturer="Yubico",
    description="PKCS#11 PIV Library",
    writer=User.SO,
    unlock_by=UnlockBy.PUK,
    so_login=True,
    so_pin_changes=True,
    puk_changes=True,
    sparse=True,
    creates=True,
    generates=True,
    deletes_keys=False,
    deletes_certificates=True,
    fixed_ids=True,
    overwrites_silently=True,
    shows_bare_keys=False,
    unflagged_derive=True,
    stale_after_unlock=True,
    attestation_label="X.509 Certificate for PIV Attestation ",
    why_not="this module deletes the certificate instead of the key",
)

OPENSC: Final = Quirks(
    name="opensc",
    manufacturer="OpenSC",
    so_login=False,
    creates=False,
    generates=False,
    deletes_keys=False,
    deletes_certificates=False,
    fixed_ids=True,
    shows_bare_keys=False,
    why_not="OpenSC's module does not write PIV cards",
)

UNKNOWN: Final = Quirks(name="unknown", manufacturer="", why_not="this module is not known")

KNOWN: Final = (SOFTHSM, YKCS11, OPENSC)

_RETIRED_IDS: Final = {identifier: 0x82 + identifier - 5 for identifier in range(5, 25)}
KEY_REFERENCES: Final = {1: 0x9A, 2: 0x9C, 3: 0x9D, 4: 0x9E, **_RETIRED_IDS}
"""PIV key references by the CKA_ID that ykcs11 and OpenSC give them."""


def quirks_of(module: ModuleInfo) -> Quirks:
    """The entry for a module, UNKNOWN if there is none."""
    return next((entry for entry in KNOWN if entry.knows(module)), UNKNOWN)


def key_reference_of(quirks: Quirks, identifier: bytes) -> int | None:
    """The PIV key reference (SP 800-73-5 part 1 table 4b) behind a CKA_ID; None where ids mean nothing."""
    if not quirks.fixed_ids or len(identifier) != 1:
        return None
    return KEY_REFERENCES.get(identifier[0])


def id_of_key_reference(quirks: Quirks, reference: int) -> bytes:
    """The CKA_ID for a PIV key reference: the module's own where it fixes them, else the reference itself."""
    if not quirks.fixed_ids:
        return bytes([reference])
    for identifier, known in KEY_REFERENCES.items():
        if known == reference:
            return bytes([identifier])
    raise ValueError(f"no CKA_ID for key reference {reference:02X}")
