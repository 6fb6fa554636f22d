"""Management keys of vendors as openssl makes them; nothing of the program under test."""

from __future__ import annotations

import subprocess


def openssl(*arguments: str, data: bytes = b"") -> bytes:
    """What a command of openssl prints."""
    return subprocess.run(["openssl", *arguments], input=data, capture_output=True, check=True).stdout


def derived(kdf: str, master: bytes, data: bytes, size: int) -> bytes:
    """The management key of a card."""
    if kdf == "sp800-108-cmac":
        options = (f"cipher:AES-{8 * len(master)}-CBC", "mac:CMAC", "mode:COUNTER", f"hexkey:{master.hex()}",
                   "salt:management-key", f"hexinfo:{data.hex()}")  # fmt: skip
        return openssl(
            "kdf", "-binary", "-keylen", str(size), *(part for one in options for part in ("-kdfopt", one)), "KBKDF"
        )
    part = data[:2] + data[4:8] if kdf == "visa2" else data[4:10]
    key = (master + master[:8])[:24]
    halves = openssl("enc", "-des-ede3-ecb", "-nopad", "-K", key.hex(),
                     data=part + bytes((0xF0, 1)) + part + bytes((0x0F, 1)))  # fmt: skip
    return halves + halves[:8]
