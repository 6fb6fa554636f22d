"""A CA of the vault signs only what its profile allows, whoever asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import core as asn1_core
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cardwright_server.vault.certificates import check_certificate
from cardwright_server.vault.der import key_id
from cardwright_server.vault.errors import VaultRefused
from cardwright_server.vault.model import KeyRole, SigningAlgorithm
from tests.support.vault import (
    CLIENT_AUTH,
    UPN,
    Clock,
    Pki,
    ca_tbs,
    leaf,
    make_core,
    make_pki,
    openssl,
    policies,
    public_of,
    run,
    subject,
    tbs_of,
    usage,
)

KEY = ec.generate_private_key(ec.SECP256R1()).public_key()
RSA_KEY = rsa.generate_private_key(65537, 2048).public_key()


def sign(pki: Pki, tbs: bytes, profile: str = "piv-authentication", ca: str = "cards") -> x509.Certificate:
    return run(pki.certify(ca, profile, tbs))


def tbs(pki: Pki, **changes: Any) -> bytes:
    key = changes.pop("key", KEY)
    return tbs_of(leaf(pki, key, **changes).builder(), run(pki.vault.public_key("cards")))


def reason(pki: Pki, content: bytes, profile: str = "piv-authentication", ca: str = "cards") -> str:
    with pytest.raises(VaultRefused) as caught:
        run(pki.vault.sign_certificate(ca, profile, content))
    return caught.value.reason


@pytest.mark.parametrize(
    "algorithms",
    [
        (SigningAlgorithm.RSA2048, SigningAlgorithm.RSA2048),
        (SigningAlgorithm.P256, SigningAlgorithm.P384),
        (SigningAlgorithm.P384, SigningAlgorithm.RSA3072),
    ],
    ids=lambda pair: f"{pair[0].value}-under-{pair[1].value}",
)
def test_openssl_accepts_the_chain(
    tmp_path: Path, clock: Clock, algorithms: tuple[SigningAlgorithm, SigningAlgorithm]
) -> None:
    pki = run(make_pki(make_core(tmp_path / "vault", clock), clock, *algorithms))
    certificate = sign(pki, tbs(pki))
    for name, one in (*pki.certificates.items(), ("leaf", certificate)):
        (tmp_path / f"{name}.pem").write_bytes(one.public_bytes(Encoding.PEM))
    said = openssl(
        *("verify", "-x509_strict", "-attime", str(int(clock.now) + 60)),
        *("-trusted", str(tmp_path / "root.pem"), "-untrusted", str(tmp_path / "cards.pem")),
        str(tmp_path / "leaf.pem"),
    )
    assert said.endswith(b"leaf.pem: OK\n")


def test_the_issuer_must_be_certified_first(tmp_path: Path, clock: Clock) -> None:
    pki = run(make_pki(make_core(tmp_path / "vault", clock), clock))
    content = tbs(pki, issuer=subject("other"))
    run(pki.key("other", KeyRole.ISSUING, profiles=["piv-authentication"]))
    assert reason(pki, content, ca="other") == "uncertified"


DAY = timedelta(days=1)
OTHER = subject("somebody else")

WRONG: dict[str, tuple[str, Callable[[Pki], dict[str, Any]]]] = {
    "issuer": ("issuer", lambda pki: {"issuer": OTHER}),
    "issuer is the root": ("issuer", lambda pki: {"issuer": subject("root")}),
    "subject of a CA": ("holder", lambda pki: {"subject": subject("root")}),
    "subject of the content signer": ("holder", lambda pki: {"subject": subject("content")}),
    "no name at all": ("alternative-name", lambda pki: {"subject": x509.Name([]), "extensions": ()}),
    "short serial": ("serial", lambda pki: {"serial": (1 << 63) - 1}),
    "begins long ago": ("time", lambda pki: {"begin": pki.clock.moment - 2 * DAY}),
    "begins later": ("time", lambda pki: {"begin": pki.clock.moment + DAY}),
    "too long": ("validity", lambda pki: {"days": 1097}),
    "RSA-1024": ("public-key", lambda pki: {"key": rsa.generate_private_key(65537, 1024).public_key()}),
    "exponent 3": ("public-key", lambda pki: {"key": rsa.generate_private_key(3, 2048).public_key()}),
    "P-521": ("public-key", lambda pki: {"key": ec.generate_private_key(ec.SECP521R1()).public_key()}),
    "the CA's own key": ("holder", lambda pki: {"key": pki.certificates["cards"].public_key()}),
    "the content signer's key": ("holder", lambda pki: {"key": public_of(run(pki.vault.public_key("content")))}),
    "no key usage": ("key-usage", lambda pki: {"usage": None}),
    "key usage may sign certificates": (
        "key-usage",
        lambda pki: {"usage": usage("digital_signature", "key_cert_sign")},
    ),
    "key usage may sign CRLs": ("key-usage", lambda pki: {"usage": usage("digital_signature", "crl_sign")}),
    "key usage not critical": ("extension", lambda pki: {"usage_critical": False}),
    "no authority key id": ("key-id", lambda pki: {"authority": None}),
    "another authority key id": (
        "key-id",
        lambda pki: {"authority": x509.AuthorityKeyIdentifier.from_issuer_public_key(KEY)},
    ),
    "authority key id with issuer and serial": (
        "key-id",
        lambda pki: {
            "authority": x509.AuthorityKeyIdentifier(
                key_id(run(pki.vault.public_key("cards")).public_key), [x509.DirectoryName(OTHER)], 5
            )
        },
    ),
    "another subject key id": ("key-id", lambda pki: {"subject_key": x509.SubjectKeyIdentifier(bytes(20))}),
}

WRONG_EXTENSIONS: dict[str, tuple[str, x509.ExtensionType, bool]] = {
    "CA": ("extension", x509.BasicConstraints(True, 0), True),
    "not a CA, but says so": ("extension", x509.BasicConstraints(False, None), True),
    "OCSP signing": ("extended-key-usage", x509.ExtendedKeyUsage([CLIENT_AUTH, x509.OID_OCSP_SIGNING]), False),
    "server": ("extended-key-usage", x509.ExtendedKeyUsage([x509.ObjectIdentifier("1.3.6.1.5.5.7.3.1")]), False),
    "any usage": ("extended-key-usage", x509.ExtendedKeyUsage([x509.ObjectIdentifier("2.5.29.37.0")]), False),
    "content signing": (
        "extended-key-usage",
        x509.ExtendedKeyUsage([x509.ObjectIdentifier("2.16.840.1.101.3.6.7")]),
        False,
    ),
    "policy of another use": ("policy", policies("2.16.840.1.101.3.2.1.3.17"), False),
    "any policy": ("policy", policies("2.5.29.32.0"), False),
    "policy twice": ("policy", policies("2.16.840.1.101.3.2.1.3.13", "2.16.840.1.101.3.2.1.3.13"), False),
    "DNS name": ("alternative-name", x509.SubjectAlternativeName([x509.DNSName("example.test")]), False),
    "IP address": (
        "alternative-name",
        x509.SubjectAlternativeName([x509.IPAddress(ip_address("192.0.2.1"))]),
        False,
    ),
    "directory name": ("alternative-name", x509.SubjectAlternativeName([UPN, x509.DirectoryName(OTHER)]), False),
    "critical names beside a subject": ("extension", x509.SubjectAlternativeName([UPN]), True),
    "name constraints": ("extension", x509.NameConstraints([x509.DNSName("x.test")], None), True),
    "no OCSP check": ("extension", x509.OCSPNoCheck(), False),
    "unknown": ("extension", x509.UnrecognizedExtension(x509.ObjectIdentifier("2.999.1"), b"\x05\x00"), False),
    "SID that is no DER": (
        "structure",
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.311.25.2"), b"\x30\x80\0\0"),
        False,
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_one_wrong_field(pki: Pki, name: str) -> None:
    expected, changes = WRONG[name]
    content = tbs(pki, **changes(pki))
    entries = pki.core.log.entries
    assert reason(pki, content) == expected
    assert pki.core.log.entries == entries + 1


@pytest.mark.parametrize("name", WRONG_EXTENSIONS)
def test_one_wrong_extension(pki: Pki, name: str) -> None:
    expected, value, critical = WRONG_EXTENSIONS[name]
    good = [one for one in leaf(pki, KEY).extensions if type(one[0]) is not type(value)]
    assert reason(pki, tbs(pki, extensions=(*good, (value, critical)))) == expected


def rewritten(content: bytes, change: Callable[[asn1_x509.TbsCertificate], None]) -> bytes:
    value = asn1_x509.TbsCertificate.load(content)
    change(value)
    return bytes(value.dump(force=True))


def test_structures_that_no_builder_makes(pki: Pki) -> None:
    good = tbs(pki)

    def signature(value: asn1_x509.TbsCertificate) -> None:
        value["signature"] = {"algorithm": "sha1_rsa", "parameters": asn1_core.Null()}

    def version(value: asn1_x509.TbsCertificate) -> None:
        value["version"] = "v1"

    def unique(value: asn1_x509.TbsCertificate) -> None:
        value["subject_unique_id"] = asn1_core.OctetBitString(b"x")

    def twice(value: asn1_x509.TbsCertificate) -> None:
        value["extensions"].append(value["extensions"][0])

    def negative(value: asn1_x509.TbsCertificate) -> None:
        value["serial_number"] = -(1 << 100)

    for change, expected in (
        (signature, "signature-algorithm"),
        (version, "version"),
        (unique, "structure"),
        (twice, "structure"),
        (negative, "serial"),
    ):
        assert reason(pki, rewritten(good, change)) == expected
    for broken in (b"", b"\0", good[:-1], good + b"\0", good + good, b"\x30\x80" + good[4:] + b"\0\0"):
        assert reason(pki, broken) == "structure"
    assert reason(pki, bytes(65_537)) == "size"
    # An explicit FALSE where DER leaves it out.
    san = good.index(bytes.fromhex("0603551d11"))
    assert reason(pki, good[: san + 5] + b"\x01\x01\x00" + good[san + 5 :]) == "structure"


def test_only_what_the_ca_may(pki: Pki) -> None:
    good = tbs(pki)
    assert reason(pki, good, profile="server") == "profile"
    assert reason(pki, good, profile="no such profile") == "profile"
    assert reason(pki, good, ca="root") == "profile"
    assert reason(pki, good, ca="ocsp") == "key"
    assert reason(pki, good, ca="content") == "key"
    assert reason(pki, good, ca="audit") == "key"
    assert reason(pki, good, ca="nobody") == "key"
    assert reason(pki, good, profile="ca") == "profile"


def test_a_ca_is_certified_only_by_the_root_and_only_if_the_vault_has_its_key(pki: Pki) -> None:
    info = run(pki.vault.public_key("root"))
    foreign = leaf(
        pki,
        KEY,
        issuer=subject("root"),
        subject=subject("evil"),
        usage=usage("key_cert_sign", "crl_sign"),
        authority=x509.AuthorityKeyIdentifier.from_issuer_public_key(public_of(info)),
        extensions=((x509.BasicConstraints(True, 0), True),),
    )
    for profile in ("ca", "root"):
        assert reason(pki, tbs_of(foreign.builder(), info), profile, "root") == "holder"
    foreign.subject = subject("cards")
    assert reason(pki, tbs_of(foreign.builder(), info), "ca", "root") == "holder"
    assert reason(pki, run(ca_tbs(pki, "cards", path_length=None)), "ca", "root") == "basic-constraints"
    assert reason(pki, run(ca_tbs(pki, "cards", path_length=3)), "ca", "root") == "basic-constraints"
    assert reason(pki, run(ca_tbs(pki, "cards", path_length=None)), "root", "root") == "holder"
    assert reason(pki, run(ca_tbs(pki, "root", path_length=0)), "ca", "root") == "holder"
    assert reason(pki, run(ca_tbs(pki, "cards", path_length=0, days=3700)), "ca", "root") == "validity"
    with pytest.raises(VaultRefused):
        run(pki.key("second", KeyRole.ISSUING, profiles=["ca"]))


def test_delegated_signers_are_the_vaults_own(pki: Pki) -> None:
    ocsp = public_of(run(pki.vault.public_key("ocsp")))
    signer = ((x509.ExtendedKeyUsage([x509.OID_OCSP_SIGNING]), False), (x509.OCSPNoCheck(), False))
    own = {"subject": subject("ocsp"), "days": 30, "extensions": signer}
    certificate = sign(pki, tbs(pki, key=ocsp, **own), "ocsp")
    assert certificate.subject == subject("ocsp")
    assert reason(pki, tbs(pki, key=KEY, **own), "ocsp") == "holder"
    assert reason(pki, tbs(pki, key=public_of(run(pki.vault.public_key("content"))), **own), "ocsp") == "holder"


def test_nothing_outlives_its_issuer(pki: Pki) -> None:
    pki.clock.now += timedelta(days=3000).total_seconds()
    assert reason(pki, tbs(pki, days=1000)) == "validity"
    assert sign(pki, tbs(pki, days=600)).issuer == subject("cards")


def test_key_usage_fits_the_key(pki: Pki) -> None:
    agreement, transport = usage("key_agreement"), usage("key_encipherment")
    common: dict[str, Any] = {"extensions": ()}
    sign(pki, tbs(pki, key=KEY, usage=agreement, **common), "key-management")
    sign(pki, tbs(pki, key=RSA_KEY, usage=transport, **common), "key-management")
    assert reason(pki, tbs(pki, key=KEY, usage=transport, **common), "key-management") == "key-usage"
    assert reason(pki, tbs(pki, key=RSA_KEY, usage=agreement, **common), "key-management") == "key-usage"


FREE = ("serial_number", "validity", "subject", "subject_public_key_info")
FREE_EXTENSIONS = ("key_identifier", "subject_alt_name")


def fixed_part(content: bytes) -> bytes:
    """A TBSCertificate with everything that a requester may choose taken out."""
    value = asn1_x509.TbsCertificate.load(content, strict=True)
    parts = [value[name].dump() for name in ("version", "signature", "issuer", "issuer_unique_id", "subject_unique_id")]
    for extension in value["extensions"]:
        name = extension["extn_id"].native
        free = name in FREE_EXTENSIONS
        parts.append(extension["extn_id"].dump() + extension["critical"].dump() if free else extension.dump())
    return b"|".join(parts)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[bytes, Callable[[bytes], bool]]]:
    """A good TBSCertificate, and whether another one would be signed under a rule that allows just what it has."""
    clock = Clock()
    core = make_core(tmp_path_factory.mktemp("vault") / "vault", clock)
    pki = run(make_pki(core, clock))
    document = core.document
    assert document is not None
    keys = {one.info.name: one.info for one in document.keys}
    rule = replace(
        document.rules["piv-authentication"],
        policies=("2.16.840.1.101.3.2.1.3.13",),
        extended_allowed=(CLIENT_AUTH.dotted_string,),
    )

    def signs(content: bytes) -> bool:
        try:
            check_certificate(content, keys["cards"], rule, keys, clock.moment, None)
        except VaultRefused:
            return False
        return True

    yield tbs(pki), signs
    core.close()


def test_flipped_bits_of_every_octet_are_refused_or_changes_only_what_is_free(
    judge: tuple[bytes, Callable[[bytes], bool]],
) -> None:
    good, signs = judge
    outcomes = {True: 0, False: 0}
    for position in range(0, len(good) * 8, 3):
        changed = bytearray(good)
        changed[position // 8] ^= 1 << position % 8
        signed = signs(bytes(changed))
        outcomes[signed] += 1
        assert not signed or fixed_part(bytes(changed)) == fixed_part(good)
    assert signs(good)
    assert outcomes[False] > outcomes[True] > 50


@settings(max_examples=300)
@given(st.data())
def test_any_splice_is_refused_or_keeps_the_fixed_part(
    judge: tuple[bytes, Callable[[bytes], bool]], data: st.DataObject
) -> None:
    good, signs = judge
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(len(good), start + 40)))
    changed = good[:start] + data.draw(st.binary(max_size=40)) + good[end:]
    assert not signs(changed) or fixed_part(changed) == fixed_part(good)
