"""The jobs of our_jobs.py in one session of yubikit, as a process of its own:

    python -m bench.yubikit_session READER JOB FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from ykman.pcsc import list_devices
from yubikit.core.smartcard import SmartCardConnection
from yubikit.piv import KEY_TYPE, MANAGEMENT_KEY_TYPE, OBJECT_ID, SLOT, PivSession

OLD = bytes.fromhex("010203040506070801020304050607080102030405060708")
NEW = bytes(range(1, 49, 2))
SLOTS = (SLOT.AUTHENTICATION, SLOT.SIGNATURE, SLOT.KEY_MANAGEMENT, SLOT.CARD_AUTH)


def personalize(session: Any, certificate: x509.Certificate, key: Any, kind: KEY_TYPE, filled: Path) -> None:
    """What our personalization does, in the same order."""
    session.authenticate(OLD)
    for slot in SLOTS:
        if slot != SLOT.KEY_MANAGEMENT:
            session.generate_key(slot, kind)
    session.put_key(SLOT.KEY_MANAGEMENT, key)
    for number in (OBJECT_ID.CHUID, OBJECT_ID.CAPABILITY):
        session.put_object(number, (filled / f"{number:X}").read_bytes())
    for slot in SLOTS:
        session.put_certificate(slot, certificate)
    session.set_management_key(MANAGEMENT_KEY_TYPE.TDES, NEW)
    session.change_puk("12345678", "87654321")
    session.change_pin("123456", "654321")


def main(reader: str, job: str, folder: str) -> None:
    """Run ``job`` on the card in ``reader`` with the files in ``folder``."""
    files = Path(folder)
    devices: list[Any] = list_devices(reader)  # type: ignore[no-untyped-call]
    with devices[0].open_connection(SmartCardConnection) as connection:
        session = PivSession(connection)
        match job.partition("-"):
            case "read", _, _:
                for number in (OBJECT_ID.CHUID, OBJECT_ID.CAPABILITY):
                    session.get_object(number)
                for slot in SLOTS:
                    session.get_certificate(slot)
            case "verify", _, _:
                session.verify_pin("123456")
            case "change", _, _:
                session.change_pin("123456", "654321")
            case "unblock", _, _:
                session.unblock_pin("12345678", "654321")
            case "personalize", _, name:
                certificate = x509.load_pem_x509_certificate((files / f"{name}.pem").read_bytes())
                key = load_pem_private_key((files / f"{name}.key").read_bytes(), None)
                kind = KEY_TYPE.ECCP256 if name == "p256" else KEY_TYPE.RSA2048
                personalize(session, certificate, key, kind, files)


if __name__ == "__main__":
    main(*sys.argv[1:])
