"""Compressed certificates: what strangers write is read, what we write they read, and bombs are refused."""

from __future__ import annotations

import gzip
import os
import zlib

import pytest
from yubikit.piv import decompress_certificate

from cardwright_cardops.iso7816 import tlv
from cardwright_cardops.piv.containers import CERT_9A, CONTAINERS
from cardwright_cardops.piv.objects import CertificateObject, MalformedObject
from cardwright_cardops.piv.objects.certificate import MAX_CERTIFICATE


def sequence(size: int) -> bytes:
    return tlv.encode(0x30, os.urandom(size))


def stored(data: bytes, info: int = 1) -> bytes:
    return tlv.encode(0x70, data) + tlv.encode(0x71, bytes((info,))) + tlv.encode(0xFE, b"")


def test_yubikit_inflates_what_we_write() -> None:
    der = sequence(900)
    written = tlv.parse_unique(CertificateObject(der, compressed=True).encode())
    assert decompress_certificate(written[0x70]) == der
    assert written[0x71] == b"\x01"


@pytest.mark.parametrize("level", [1, 9])
def test_gzip_and_net_id_forms_are_read(level: int) -> None:
    der = sequence(700)
    net_id = b"\x01\x00" + len(der).to_bytes(2, "little") + zlib.compress(der, level)
    for data in (gzip.compress(der, level), net_id):
        assert CertificateObject.decode(stored(data)) == CertificateObject(der, compressed=True)


def test_a_missing_cert_info_means_plain() -> None:
    der = sequence(20)
    assert CertificateObject.decode(tlv.encode(0x70, der)).der == der


def test_mscuid_is_legacy_and_kept_out_of_what_is_written() -> None:
    der = sequence(20)
    seen = CertificateObject.decode(stored(der, 0)[:-2] + bytes.fromhex("7202AABBFE00"))
    assert [item.tag for item in seen.legacy] == [0x72]
    assert seen.encode() == CertificateObject(der).encode()


def test_the_cap_is_exact() -> None:
    der = tlv.encode(0x30, bytes(MAX_CERTIFICATE - 4))
    assert len(der) == MAX_CERTIFICATE
    assert len(CertificateObject.decode(stored(gzip.compress(der))).der) == MAX_CERTIFICATE
    with pytest.raises(MalformedObject, match="inflates to more"):
        CertificateObject.decode(stored(gzip.compress(der + b"x")))


def test_more_than_the_cap_is_refused_without_inflating_it() -> None:
    bomb = gzip.compress(bytes(64 * 1024 * 1024))
    with pytest.raises(MalformedObject, match="inflates to more"):
        CertificateObject.decode(stored(bomb))


@pytest.mark.parametrize("change", [slice(0, -1), slice(0, 12), slice(3, None)])
def test_cut_data_is_refused(change: slice) -> None:
    with pytest.raises(MalformedObject, match="compressed certificate is"):
        CertificateObject.decode(stored(gzip.compress(sequence(300))[change]))


def test_a_wrong_length_or_trailing_octets_are_refused() -> None:
    der = sequence(300)
    for data in (gzip.compress(der) + b"x", b"\x01\x00\x00\x00" + zlib.compress(der)):
        with pytest.raises(MalformedObject, match="is cut, or something follows"):
            CertificateObject.decode(stored(data))


def test_what_is_no_certificate_is_said_of_its_container() -> None:
    seen = CertificateObject.decode(stored(sequence(30), 0))
    for row in (CERT_9A, CONTAINERS[0x5FC10D]):
        with pytest.raises(MalformedObject, match=row.tag_text):
            seen.x509(row)
