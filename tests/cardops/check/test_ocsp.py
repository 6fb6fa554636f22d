"""OCSP responses handed in: believed when their responder may sign them, else the status stays unknown."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import permutations, product

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from cardwright_cardops.check import Level, TrustUnreadable, check
from cardwright_cardops.check.paths import MAX_SOURCES
from tests.support.piv_card import AT, START, PivCard, Profile, crl, key

HOUR = timedelta(hours=1)
OCSP_SIGNING = "1.3.6.1.5.5.7.3.9"


def responder(**changes: object) -> Profile:
    profile = Profile(
        "OCSP", "OCSP", extended=(OCSP_SIGNING,), extended_critical=True, addresses=None, more=(x509.OCSPNoCheck(),)
    )
    return replace(profile, **changes)  # type: ignore[arg-type]


def response(
    card: PivCard, signer: Profile | None, *, revoked: bool = False, damaged: bool = False,
    reason: x509.ReasonFlags | None = None, age: timedelta = HOUR,
) -> bytes:  # fmt: skip
    """The status of 9E as of ``age`` before AT; by the CA itself without ``signer``. ``damaged``: a wrong signature."""
    issued, ca = card.issued["9E"], card.issued["ca"]
    certificate = signer.make() if signer else ca
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert=issued,
        issuer=ca,
        algorithm=hashes.SHA1(),
        cert_status=ocsp.OCSPCertStatus.REVOKED if revoked else ocsp.OCSPCertStatus.GOOD,
        this_update=AT - age,
        next_update=AT + HOUR,
        revocation_time=AT - timedelta(days=1) if revoked else None,
        revocation_reason=reason,
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, certificate).certificates([certificate])
    made = builder.sign(key(signer.public if signer else "CA"), hashes.SHA256())
    der = made.public_bytes(Encoding.DER)
    if damaged:
        wrong = made.signature[:-1] + bytes((made.signature[-1] ^ 1,))
        assert der.count(made.signature) == 1
        der = der.replace(made.signature, wrong)
    return der


def of_9e(card: PivCard, *given: bytes) -> set[str]:
    """What is found of 9E with these OCSP responses and CRLs."""
    lists = [each for each in given if is_crl(each)]
    answers = [each for each in given if not is_crl(each)]
    report = check(CARD_DATA, level=Level.PIV, at=AT, trust=card.trust, ocsp=answers, crls=[crl("Root"), *lists])
    return {each.code for each in report.findings if each.object == "5FC101"}


def is_crl(der: bytes) -> bool:
    try:
        x509.load_der_x509_crl(der)
    except ValueError:
        return False
    return True


CARD = PivCard()
CARD_DATA = CARD.data()


@pytest.mark.parametrize("signer", [None, responder()], ids=["CA", "delegated"])
def test_good_and_revoked(signer: Profile | None) -> None:
    assert of_9e(CARD, response(CARD, signer)) == set()
    assert of_9e(CARD, response(CARD, signer, revoked=True)) == {"CERT_REVOKED"}


@pytest.mark.parametrize(
    ("signer", "damaged"),
    [
        (responder(not_before=START, not_after=AT - timedelta(days=1)), False),
        (responder(extended=("1.3.6.1.5.5.7.3.2",)), False),
        (responder(issuer="Elsewhere"), False),
        (responder(), True),
    ],
    ids=["expired", "not for OCSP", "another CA's", "wrong signature"],
)
def test_a_responder_that_may_not(signer: Profile, damaged: bool) -> None:
    good = response(CARD, signer, damaged=damaged)
    assert of_9e(CARD, good) == {"REVOCATION_UNKNOWN"}
    assert of_9e(CARD, good, crl("CA")) == set()
    # nor can it revoke
    assert of_9e(CARD, response(CARD, signer, damaged=damaged, revoked=True), crl("CA")) == set()


def test_revoked_responders() -> None:
    """With id-pkix-ocsp-nocheck the responder's own status is not asked, without it it is."""
    revoked = crl("CA", (4242,))
    assert of_9e(CARD, response(CARD, responder(serial=4242)), revoked) == set()
    plain = responder(serial=4242, more=(), addresses="http")
    assert of_9e(CARD, response(CARD, plain), revoked) == set()  # the CRL itself says that 9E is good
    assert of_9e(CARD, response(CARD, plain, revoked=True), revoked) == set()


def test_a_good_response_does_not_hide_what_another_source_says() -> None:
    good, revoked, unusable = (
        response(CARD, None), response(CARD, None, revoked=True), response(CARD, None, revoked=True, damaged=True)
    )  # fmt: skip
    listed = crl("CA", (CARD.issued["9E"].serial_number,))
    assert of_9e(CARD, good, listed) == {"CERT_REVOKED"}
    for answers in ([good, revoked], [revoked, good]):
        assert of_9e(CARD, *answers) == {"CERT_REVOKED"}
    assert of_9e(CARD, good, unusable) == set()


HOLD = x509.ReasonFlags.certificate_hold


def said(kind: str, status: str, age: int) -> bytes:
    """What a source said of 9E ``age`` hours before AT."""
    revoked, reason = status != "good", HOLD if status == "hold" else None
    if kind == "ocsp":
        return response(CARD, None, revoked=revoked, reason=reason, age=age * HOUR)
    return crl("CA", (CARD.issued["9E"].serial_number,) if revoked else (), age=age * HOUR, reason=reason)


KINDS = list(product(("ocsp", "crl"), repeat=2))


@pytest.mark.parametrize(("one", "other"), KINDS)
def test_a_revocation_is_final_however_old(one: str, other: str) -> None:
    for ages in ((5, 2), (2, 5), (3, 3)):
        sources = said(one, "revoked", ages[0]), said(other, "good", ages[1])
        assert of_9e(CARD, *sources) == of_9e(CARD, *reversed(sources)) == {"CERT_REVOKED"}, ages


@pytest.mark.parametrize(("one", "other"), KINDS)
def test_a_hold_ends_by_a_later_word_only(one: str, other: str) -> None:
    for ages, found in (((5, 2), set()), ((2, 5), {"CERT_REVOKED"}), ((3, 3), {"CERT_REVOKED"})):
        sources = said(one, "hold", ages[0]), said(other, "good", ages[1])
        assert of_9e(CARD, *sources) == of_9e(CARD, *reversed(sources)) == found, ages


@pytest.mark.parametrize("statuses", list(permutations(("good", "hold", "revoked"))))
def test_the_severest_of_three_words_is_found(statuses: tuple[str, ...]) -> None:
    sources = [said("ocsp", status, age) for age, status in enumerate(statuses, 2)]
    assert of_9e(CARD, *sources) == {"CERT_REVOKED"}


def test_a_response_that_may_not_be_believed_does_not_end_a_hold() -> None:
    held, good = said("ocsp", "hold", 4), said("crl", "good", 6)
    damaged = response(CARD, None, damaged=True, age=HOUR)
    assert of_9e(CARD, held, good, damaged) == {"CERT_REVOKED"}
    assert of_9e(CARD, said("crl", "good", 9), said("crl", "hold", 5), said("ocsp", "good", 2)) == set()


def test_many_words_are_heard_together() -> None:
    many = [said("crl", "good", age) for age in range(2, MAX_SOURCES + 4)]
    assert of_9e(CARD, *many) == set()


def test_a_ca_on_hold_until_a_later_word() -> None:
    serial = CARD.issued["ca"].serial_number
    for ages, found in (((9, 5), set()), ((5, 9), {"CERT_ISSUER_REVOKED"})):
        held, good = crl("Root", (serial,), age=ages[0] * HOUR, reason=HOLD), crl("Root", age=ages[1] * HOUR)
        for lists in ([held, good], [good, held]):
            report = check(CARD_DATA, level=Level.PIV, at=AT, trust=CARD.trust, crls=[*lists, crl("CA", age=HOUR)])
            assert {each.code for each in report.findings if each.object == "5FC101"} == found


def test_data_that_is_none() -> None:
    with pytest.raises(TrustUnreadable) as caught:
        check(CARD_DATA, at=AT, trust=CARD.trust, ocsp=[b"no"])
    assert caught.value.code == "TRUST_DATA_UNREADABLE"
