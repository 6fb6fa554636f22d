"""Everything on a PKCS#11 token, by python-pkcs11 in a process of its own; it imports nothing of ours.

    python token_dump.py MODULE LABEL < {"pin": ..., "so_pin": ...}

Prints JSON: ``objects`` (class, id, public key or certificate in hexadecimal), ``so`` (whether the security officer's
PIN is right), ``low`` (whether a try of a PIN is lost).
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pkcs11
from pkcs11 import Attribute, ObjectClass

_LOST = 0x0077_0000
"""CKF_USER_PIN_COUNT_LOW, FINAL_TRY and LOCKED, and those of the security officer."""


def _told(one: Any) -> dict[str, str]:
    kind = one.object_class
    row = {"class": kind.name.lower(), "id": one[Attribute.ID].hex(), "value": ""}
    if kind is ObjectClass.CERTIFICATE:
        row["value"] = one[Attribute.VALUE].hex()
    elif kind is ObjectClass.PUBLIC_KEY:
        row["value"] = one[Attribute.EC_POINT].hex()
    return row


def main(module: str, label: str) -> None:
    """Log in, list, look at the flags, and try the security officer's PIN."""
    secrets = json.load(sys.stdin)
    library = pkcs11.lib(module)
    token = library.get_token(token_label=label)
    low = bool(int(token.flags) & _LOST)
    with token.open(user_pin=secrets["pin"]) as session:
        objects = [_told(one) for one in session.get_objects() if one.object_class is not ObjectClass.SECRET_KEY]
    try:
        with token.open(rw=True, so_pin=secrets["so_pin"]):
            so = True
    except pkcs11.PinIncorrect:
        so = False
    print(json.dumps({"objects": objects, "so": so, "low": low}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
