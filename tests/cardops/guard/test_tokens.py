"""The guard of token sessions against a server that wants more than was shown. Pure: no module is loaded."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from cardwright_cardops.guard import Act, Deny, Permit, Rule
from cardwright_cardops.guard.preview import PreviewUnfit, permit_for
from cardwright_cardops.guard.tokens import MOST_READS, TokenGuard, begin_token, done_on_token, judge_token
from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.inventory import Evidence, Inventory, KeyState, fingerprint, spki
from cardwright_cardops.plan.steps import (
    DeleteKey,
    GenerateKey,
    ImportKey,
    Plan,
    SetPin,
    SetPuk,
    Step,
    WriteCertificate,
)
from cardwright_cardops.plan.token import TokenName
from cardwright_cardops.program import token_items as t
from cardwright_cardops.secret import Secret

P256 = int(Algorithm.P256)
OLD = ec.generate_private_key(ec.SECP256R1())
KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
IDENTITY = TokenName("Ada", "1234", "SoftHSM project", "SoftHSM v2").identity()
SUBJECT = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Ada")]).public_bytes()
SO_PIN = Secret(b"13579086")


def there(slot: Slot, key: ec.EllipticCurvePrivateKey) -> KeyState:
    public = key.public_key()
    return KeyState(slot, Evidence.METADATA, P256, fingerprint(public), spki(public))


def shown(*steps: Step, keys: tuple[KeyState, ...] = ()) -> TokenGuard:
    """The state after the person agreed to these steps."""
    inventory = Inventory(identity=IDENTITY, keys=keys)
    plan = Plan("test", IDENTITY, steps)
    begun = begin_token(permit_for(plan.document(), inventory.document()), plan=bytes.fromhex(plan.digest))
    assert isinstance(begun, TokenGuard)
    return begun


def go(state: TokenGuard, item: t.TokenItem, data: bytes = b"") -> TokenGuard:
    """Have it allowed, and done."""
    allowed = judge_token(state, item)
    assert isinstance(allowed, TokenGuard), allowed
    return done_on_token(allowed, item, data)


def denied(state: TokenGuard, item: t.TokenItem) -> Rule:
    found = judge_token(state, item)
    assert isinstance(found, Deny)
    return found.rule


def certificate(key: ec.EllipticCurvePrivateKey) -> bytes:
    now = datetime(2026, 11, 22, tzinfo=UTC)
    name = x509.Name.from_bytes(SUBJECT)
    built = x509.CertificateBuilder(name, name, key.public_key(), 7, now, now + timedelta(days=9))
    return built.sign(OTHER, hashes.SHA256()).public_bytes(Encoding.DER)


def pkcs8(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> Secret:
    return Secret(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))


MAKE = t.MakeTokenKey(Slot.AUTHENTICATION, P256)
BRING = t.PutTokenKey(Slot.KEY_MANAGEMENT, P256, pkcs8(KEY))
WRITES: tuple[t.TokenItem, ...] = (
    t.SetSoPin(SO_PIN, SO_PIN),
    t.InitPin(SO_PIN),
    MAKE,
    t.RequestTokenCertificate(Slot.AUTHENTICATION, SUBJECT),
    BRING,
    t.PutTokenCertificate(Slot.AUTHENTICATION, certificate(KEY)),
    t.RemoveToken(Slot.AUTHENTICATION, fingerprint(OLD.public_key())),
)


def test_before_consent_a_token_is_only_read() -> None:
    state = begin_token(Permit(b""))
    assert isinstance(state, TokenGuard)
    for item in WRITES:
        assert isinstance(judge_token(state, item), Deny)
    for _ in range(MOST_READS):
        state = go(state, t.ReadToken())
    assert denied(state, t.ReadToken()) is Rule.ITEM


def test_another_plan_than_the_previewed_one_does_nothing() -> None:
    plan = Plan("test", IDENTITY, (GenerateKey(Slot.AUTHENTICATION, Algorithm.P256),))
    permit = permit_for(plan.document(), Inventory(identity=IDENTITY).document())
    for digest in (None, b"", bytes(32)):
        found = begin_token(permit, plan=digest)
        assert isinstance(found, Deny) and found.rule is Rule.PLAN


def test_each_step_is_done_once_and_as_it_was_shown() -> None:
    state = shown(
        GenerateKey(Slot.AUTHENTICATION, Algorithm.P256), WriteCertificate(Slot.AUTHENTICATION, Algorithm.P256)
    )
    others: tuple[t.TokenItem, ...] = (
        replace(MAKE, slot=Slot.SIGNATURE),
        replace(MAKE, algorithm=int(Algorithm.RSA1024)),
        replace(MAKE, slot=0xF9),
        t.SetSoPin(SO_PIN, SO_PIN),
        t.InitPin(SO_PIN),
        BRING,
        t.RemoveToken(Slot.AUTHENTICATION, ""),
    )
    for other in others:
        assert isinstance(judge_token(state, other), Deny), other
    state = go(state, MAKE, spki(KEY.public_key()))
    assert denied(state, MAKE) is Rule.ITEM
    state = go(state, t.RequestTokenCertificate(Slot.AUTHENTICATION, SUBJECT))
    assert denied(state, t.RequestTokenCertificate(Slot.AUTHENTICATION, SUBJECT)) in (Rule.ITEM, Rule.KEY)
    state = go(state, t.PutTokenCertificate(Slot.AUTHENTICATION, certificate(KEY)))
    assert denied(state, t.PutTokenCertificate(Slot.AUTHENTICATION, certificate(KEY))) is Rule.ITEM
    assert state.touched == {Slot.AUTHENTICATION}


def test_a_key_that_the_session_did_not_make_signs_no_request() -> None:
    state = shown(
        GenerateKey(Slot.AUTHENTICATION, Algorithm.P256, replaces=fingerprint(OLD.public_key())),
        WriteCertificate(Slot.AUTHENTICATION, Algorithm.P256),
        keys=(there(Slot.AUTHENTICATION, OLD), there(Slot.SIGNATURE, KEY)),
    )
    assert denied(state, t.RequestTokenCertificate(Slot.AUTHENTICATION, SUBJECT)) is Rule.KEY
    assert denied(state, t.RequestTokenCertificate(Slot.SIGNATURE, SUBJECT)) is Rule.KEY


def test_a_certificate_is_for_the_key_that_is_there() -> None:
    state = shown(
        GenerateKey(Slot.AUTHENTICATION, Algorithm.P256), WriteCertificate(Slot.AUTHENTICATION, Algorithm.P256)
    )
    for der in (certificate(KEY), certificate(OTHER), b"no certificate at all"):
        assert isinstance(judge_token(state, t.PutTokenCertificate(Slot.AUTHENTICATION, der)), Deny)
    state = go(state, MAKE, spki(KEY.public_key()))
    assert denied(state, t.PutTokenCertificate(Slot.AUTHENTICATION, certificate(OTHER))) is Rule.ITEM
    assert denied(state, t.PutTokenCertificate(Slot.AUTHENTICATION, b"\x30\x03\x02\x01\x00")) is Rule.KEY
    go(state, t.PutTokenCertificate(Slot.AUTHENTICATION, certificate(KEY)))


def test_keys_from_outside_go_where_they_were_shown_and_nowhere_else() -> None:
    step = ImportKey(Slot.KEY_MANAGEMENT, Algorithm.P256, key=fingerprint(KEY.public_key()))
    state = shown(step, WriteCertificate(Slot.KEY_MANAGEMENT, Algorithm.P256))
    assert isinstance(judge_token(state, replace(BRING, key=pkcs8(OTHER))), Deny)
    assert isinstance(judge_token(state, replace(BRING, slot=Slot.RETIRED_1)), Deny)
    rsa2048 = rsa.generate_private_key(65537, 2048)
    assert denied(state, replace(BRING, key=pkcs8(rsa2048))) is Rule.KEY
    assert denied(state, replace(BRING, key=Secret(b"no key"))) is Rule.KEY
    state = go(state, BRING)
    go(state, t.PutTokenCertificate(Slot.KEY_MANAGEMENT, certificate(KEY)))


def test_no_plan_brings_a_key_from_outside_into_9a() -> None:
    state = shown(ImportKey(Slot.AUTHENTICATION, Algorithm.P256), WriteCertificate(Slot.AUTHENTICATION, Algorithm.P256))
    assert denied(state, replace(BRING, slot=Slot.AUTHENTICATION)) is Rule.FLOOR


def test_a_key_of_9c_wants_the_pin_each_time_whatever_the_server_says() -> None:
    state = shown(GenerateKey(Slot.SIGNATURE, Algorithm.P256), WriteCertificate(Slot.SIGNATURE, Algorithm.P256))
    assert denied(state, t.MakeTokenKey(Slot.SIGNATURE, P256, always=False)) is Rule.ITEM
    go(state, t.MakeTokenKey(Slot.SIGNATURE, P256, always=True), spki(KEY.public_key()))


def test_steps_keep_their_order() -> None:
    brought = ImportKey(Slot.KEY_MANAGEMENT, Algorithm.P256)
    state = shown(SetPuk(), SetPin(), brought, WriteCertificate(Slot.KEY_MANAGEMENT, Algorithm.P256))
    assert denied(state, BRING) is Rule.ITEM
    state = go(state, t.SetSoPin(SO_PIN, SO_PIN))
    assert denied(state, BRING) is Rule.ITEM
    state = go(state, t.InitPin(SO_PIN))
    state = go(state, BRING)
    assert isinstance(judge_token(state, t.SetSoPin(SO_PIN, SO_PIN)), Deny)


def test_a_key_goes_only_by_its_name_and_after_its_act_was_confirmed_by_name() -> None:
    gone = fingerprint(OLD.public_key())
    state = shown(DeleteKey(Slot.SIGNATURE, gone), keys=(there(Slot.SIGNATURE, OLD), there(Slot.AUTHENTICATION, KEY)))
    item = t.RemoveToken(Slot.SIGNATURE, gone)
    assert state.permit.acts == {Act.DELETE}
    assert denied(state, item) is Rule.FLOOR
    state = replace(state, permit=replace(state.permit, confirmed=frozenset({Act.DELETE})))
    assert isinstance(judge_token(state, t.RemoveToken(Slot.AUTHENTICATION, fingerprint(KEY.public_key()))), Deny)
    assert isinstance(judge_token(state, t.RemoveToken(Slot.SIGNATURE, fingerprint(KEY.public_key()))), Deny)
    state = go(state, item)
    assert denied(state, item) is Rule.ITEM
    with pytest.raises(PreviewUnfit):
        shown(DeleteKey(Slot.SIGNATURE, gone))
    with pytest.raises(PreviewUnfit):
        shown(DeleteKey(Slot.SIGNATURE, gone), keys=(there(Slot.SIGNATURE, KEY),))


def test_so_pins_are_not_tried_for_ever() -> None:
    state = shown(SetPuk(), SetPin())
    item = t.SetSoPin(SO_PIN, SO_PIN)
    tried = 0
    while isinstance(allowed := judge_token(state, item), TokenGuard):
        state, tried = allowed, tried + 1
    assert (tried, denied(state, item)) == (4, Rule.PIN)


@pytest.mark.parametrize("confirmed", [False, True])
def test_what_was_begun_counts_as_touched_though_nobody_heard_of_it(confirmed: bool) -> None:
    state = shown(
        GenerateKey(Slot.AUTHENTICATION, Algorithm.P256), WriteCertificate(Slot.AUTHENTICATION, Algorithm.P256)
    )
    begun = judge_token(state, MAKE)
    assert isinstance(begun, TokenGuard)
    state = done_on_token(begun, MAKE, spki(KEY.public_key())) if confirmed else begun
    assert state.touched == {Slot.AUTHENTICATION}
    assert (Slot.AUTHENTICATION in state.made) is confirmed
