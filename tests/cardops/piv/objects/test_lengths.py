"""Which data objects a container has, and how long each may be: SP 800-73-5 part 1 appendix A, written down again."""

from __future__ import annotations

import pytest

from cardwright_cardops.piv.objects.biometric import BiometricObject
from cardwright_cardops.piv.objects.bitgt import BitGroup
from cardwright_cardops.piv.objects.ccc import Ccc
from cardwright_cardops.piv.objects.certificate import CertificateObject
from cardwright_cardops.piv.objects.chuid import Chuid
from cardwright_cardops.piv.objects.discovery import Discovery
from cardwright_cardops.piv.objects.key_history import KeyHistory
from cardwright_cardops.piv.objects.layout import Need, PivObject
from cardwright_cardops.piv.objects.pairing_code import PairingCode
from cardwright_cardops.piv.objects.printed import Printed
from cardwright_cardops.piv.objects.security_object import SecurityObject
from cardwright_cardops.piv.objects.sm_signer import SmSigner

ANY, OLD = Need.OPTIONAL, Need.LEGACY
Sizes = dict[int, tuple[int, ...]]

# Tag to shortest and longest length; a third number is how many lengths there are in all, where not every one is.
MUST: dict[type[PivObject], Sizes] = {
    BiometricObject: {0xBC: (1, 65535), 0xFE: (0, 0)},
    BitGroup: {0x02: (1, 1)},
    Ccc: {
        0xF0: (0, 21, 2), 0xF1: (0, 1), 0xF2: (0, 1), 0xF4: (0, 1), 0xF5: (1, 1), 0xF6: (0, 17, 2), 0xF7: (0, 0),
        0xFA: (0, 0), 0xFB: (0, 0), 0xFC: (0, 0), 0xFD: (0, 0), 0xFE: (0, 0),
    },
    CertificateObject: {0x70: (1, 1856), 0x71: (1, 1), 0xFE: (0, 0)},
    Chuid: {0x30: (25, 25), 0x34: (16, 16), 0x35: (8, 8), 0x3E: (0, 2816), 0xFE: (0, 0)},
    Discovery: {0x4F: (11, 11), 0x5F2F: (2, 2)},
    KeyHistory: {0xC1: (1, 1), 0xC2: (1, 1), 0xFE: (0, 0)},
    PairingCode: {0x99: (8, 8), 0xFE: (0, 0)},
    Printed: {0x01: (0, 125), 0x02: (0, 20), 0x04: (9, 9), 0x05: (0, 20), 0x06: (0, 15), 0xFE: (0, 0)},
    SecurityObject: {0xBA: (0, 48, 17), 0xBB: (1, 1298), 0xFE: (0, 0)},
    SmSigner: {0x70: (1, 1856), 0x71: (1, 1), 0xFE: (0, 0)},
}  # fmt: skip
MAY: dict[type[PivObject], Sizes] = {
    BitGroup: {0x7F60: (0, 28)},
    Ccc: {0xF3: (0, 128)},
    Chuid: {0x36: (16, 16)},
    KeyHistory: {0xF3: (0, 118)},
    Printed: {0x07: (0, 20), 0x08: (0, 20)},
    SmSigner: {0x7F21: (0, 601)},
}
ONCE: dict[type[PivObject], Sizes] = {
    Ccc: {0xE3: (0, 48), 0xB4: (0, 48)},
    CertificateObject: {0x72: (0, 38)},
    Chuid: {0xEE: (2, 2), 0x32: (4, 4), 0x33: (9, 9), 0x3D: (0, 512)},
}


@pytest.mark.parametrize("kind", list(MUST), ids=lambda kind: kind.__name__)
def test_lengths_are_those_of_the_standard(kind: type[PivObject]) -> None:
    for need, table in ((Need.MANDATORY, MUST), (ANY, MAY), (OLD, ONCE)):
        seen = {row.tag: (min(row.sizes), max(row.sizes), len(row.sizes)) for row in kind.LAYOUT if row.need is need}
        assert seen == {
            tag: (sizes[0], sizes[1], sizes[2] if len(sizes) == 3 else sizes[1] - sizes[0] + 1)
            for tag, sizes in table.get(kind, {}).items()
        }
