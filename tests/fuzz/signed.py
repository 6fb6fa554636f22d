"""CMS signatures, hash tables and FASC-Ns: any octets are read or refused with a documented error."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import atheris
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.fuzzing import fuzz

with atheris.instrument_imports(include=["cardwright_cardops"]):
    from cardwright_cardops.asn1 import MalformedAsn1
    from cardwright_cardops.piv import signed
    from cardwright_cardops.piv.objects.fascn import Fascn, MalformedFascn, inspect
    from cardwright_cardops.piv.objects.security_object import HashTable


def one(raw: bytes) -> None:
    with suppress(MalformedAsn1, signed.SignatureRefused):
        signed.read(raw)
    with suppress(MalformedAsn1, signed.SignatureRefused):
        table = HashTable.decode(raw)
        assert HashTable.decode(table.encode()) == table
    inspect(raw)
    with suppress(MalformedFascn):
        assert Fascn.decode(raw).encode() == raw


def seeds() -> list[bytes]:
    """A signature, a hash table and a FASC-N."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(1))
    certificate = builder.sign(key, hashes.SHA256())
    signature = signed.sign_detached(b"x", "2.16.840.1.101.3.6.1", signed.Signer(certificate, key))
    return [signature, HashTable.over({1: b"x", 2: b"y"}).encode(), Fascn("1234", "5678", "901234").encode()]


if __name__ == "__main__":
    fuzz(one, seeds())
