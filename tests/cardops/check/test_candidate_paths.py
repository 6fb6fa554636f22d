"""Hostile sets of CA certificates: the number of paths that are tried has a limit, and honest chains are found."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from cardwright_cardops.check import CardData, Level, Report, check
from cardwright_cardops.check.candidate_paths import MAX_CANDIDATES, MAX_DEPTH, CandidatePaths
from cardwright_cardops.piv import containers
from cardwright_cardops.piv.objects import CertificateObject
from tests.support.piv_card import AT, key, name_of

NUMBERS = itertools.count(1000)


def certificate(subject: str, issuer: str, *, signer: str = "", ca: bool = True) -> x509.Certificate:
    """``signer``: whose key signs, if not the issuer's."""
    return (
        x509.CertificateBuilder()
        .subject_name(name_of(subject))
        .issuer_name(name_of(issuer))
        .public_key(key(subject).public_key())
        .serial_number(next(NUMBERS))
        .not_valid_before(datetime(2027, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2028, 1, 1, tzinfo=UTC))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .sign(key(signer or issuer), hashes.SHA256())
    )


def mesh(count: int) -> list[x509.Certificate]:
    """CAs that all certify each other."""
    names = [f"Mesh {number}" for number in range(count)]
    return [certificate(*pair) for pair in itertools.permutations(names, 2)]


def judged(leaf: x509.Certificate, trust: Sequence[x509.Certificate]) -> Report:
    content = CertificateObject(leaf.public_bytes(Encoding.DER)).encode()
    card = CardData({0x5FC105: containers.wrap(0x5FC105, content)})
    return check(card, level=Level.BASIC, at=AT, trust=trust)


def path_findings(report: Report) -> set[str]:
    wanted = {"CERT_UNTRUSTED", "CERT_PATH_INVALID", "PATH_TOO_MANY"}
    return {each.code for each in report.findings} & wanted


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[CandidatePaths]:
    """Every walk of a check, to be counted afterwards."""
    made: list[CandidatePaths] = []
    plain = CandidatePaths.__init__

    def counting(self: CandidatePaths, *arguments: object) -> None:
        plain(self, *arguments)  # type: ignore[arg-type]
        made.append(self)

    monkeypatch.setattr(CandidatePaths, "__init__", counting)
    return made


def codes(leaf: x509.Certificate, trust: Iterable[x509.Certificate]) -> set[str]:
    return path_findings(judged(leaf, list(trust)))


def test_a_mesh_that_reaches_no_anchor_ends_and_says_so(looked_at: list[CandidatePaths]) -> None:
    leaf = certificate("9A", "Mesh 0", ca=False)
    assert codes(leaf, [*mesh(8), certificate("Root", "Root")]) == {"CERT_UNTRUSTED", "PATH_TOO_MANY"}
    assert [(walk.emitted, walk.cut) for walk in looked_at] == [(0, True)]


def test_many_paths_that_do_not_hold_are_tried_up_to_the_limit(looked_at: list[CandidatePaths]) -> None:
    leaf = certificate("9A", "Mesh 0", ca=False)
    forged = [certificate("Mesh 0", "Root", signer="Mallory") for _ in range(MAX_CANDIDATES + 1)]
    assert codes(leaf, [*mesh(4), *forged, certificate("Root", "Root")]) == {"CERT_PATH_INVALID", "PATH_TOO_MANY"}
    assert [(walk.emitted, walk.cut) for walk in looked_at] == [(MAX_CANDIDATES, True)]


def test_the_shortest_path_through_a_mesh_is_found_first(looked_at: list[CandidatePaths]) -> None:
    leaf = certificate("9A", "Mesh 0", ca=False)
    trust = [*mesh(8), certificate("Mesh 7", "Root"), certificate("Root", "Root")]
    assert codes(leaf, trust) == set()
    assert looked_at[0].emitted == 1


def test_a_second_path_is_tried_where_the_first_does_not_hold(looked_at: list[CandidatePaths]) -> None:
    leaf = certificate("9A", "Middle", ca=False)
    trust = [certificate("Middle", "Root", signer="Mallory"), certificate("Middle", "Top"), certificate("Top", "Root")]
    assert codes(leaf, [*trust, certificate("Root", "Root")]) == set()
    assert looked_at[0].emitted == 2


TOO_LONG = {"CERT_UNTRUSTED", "PATH_TOO_MANY"}


@pytest.mark.parametrize(("length", "expected"), [(MAX_DEPTH, set()), (MAX_DEPTH + 1, TOO_LONG)])
def test_depth(length: int, expected: set[str]) -> None:
    """``length`` certificates from the leaf up to and without the anchor."""
    names = ["9A", *(f"Mesh {number}" for number in range(length - 1)), "Root"]
    leaf, *chain = [certificate(low, high, ca=low != "9A") for low, high in itertools.pairwise(names)]
    assert codes(leaf, [*chain, certificate("Root", "Root")]) == expected


def test_a_certificate_that_is_an_anchor_itself_needs_no_path() -> None:
    root = certificate("Root", "Root")
    assert codes(root, [root]) == set()
