"""Is every container one data object, with the right data objects inside, in order and of the right size?"""

from __future__ import annotations

from ..iso7816 import tlv
from ..iso7816.tlv import MalformedTlv
from ..piv import objects
from ..piv.containers import CCC, CHUID, CONTAINERS, PIV_CONTAINERS, Container, Presence, unwrap
from ..piv.objects import CODECS, AnyObject, CertificateObject, MalformedObject
from ..piv.objects.certificate import load
from ..piv.objects.layout import Need
from ..piv.references import MANAGEMENT_KEY, PinReference
from .context import Context
from .model import Level

_SECRETS = {PinReference.PIN: "PIN", PinReference.PUK: "PUK", MANAGEMENT_KEY: "management key"}
_NOTHING = b"\x53\x00"


def check(context: Context) -> None:
    """Read everything; what can be read is in ``context`` afterwards."""
    for tag, answer in context.data.objects.items():
        container = CONTAINERS.get(tag)
        if container is None:
            context.report("OBJECT_UNKNOWN", tag, f"{tag:X} is no container of the data model")
        elif answer is None:
            context.report("OBJECT_NOT_READ", tag, f"{container.name} was not read: {container.contact.value}")
        else:
            _one(context, container, answer)
    if not any(answer is None or answer[:2] != _NOTHING for answer in context.data.objects.values()):
        context.report("NO_OBJECTS", None, "there is not one object on the card")
    wanted = (CHUID, CCC) if context.level is Level.BASIC else PIV_CONTAINERS
    for container in wanted:
        if container.presence is Presence.MANDATORY and container.tag not in context.data.objects:
            context.report("OBJECT_ABSENT", container, f"{container.name} is not on the card")
    for reference in context.data.factory_secrets:
        name = _SECRETS.get(reference, f"secret {reference:02X}")
        context.report("FACTORY_SECRET", reference, f"the {name} still has its factory value")


def _one(context: Context, container: Container, answer: bytes) -> None:
    try:
        value = unwrap(container.tag, answer)
    except MalformedTlv as cause:
        context.report("OBJECT_UNREADABLE", container, f"{container.name}: {cause}")
        return
    if not value:
        context.report("OBJECT_EMPTY", container, f"{container.name} is empty")
        return
    context.contents[container] = value
    if container.tag not in CODECS:
        return
    try:
        seen = objects.decode(container.tag, value)
        if isinstance(seen, CertificateObject):
            context.certificates[container] = load(seen.der, container)
    except MalformedObject as cause:
        context.report("OBJECT_MALFORMED", container, str(cause))
        return
    context.objects[container] = seen
    _inside(context, container, value, seen)


def _inside(context: Context, container: Container, value: bytes, seen: AnyObject) -> None:
    inner = tlv.parse_one(value).value if container.bare else value
    items = tlv.parse_all(inner)
    if tlv.join(items) != inner:
        context.report("LENGTH_NOT_SHORTEST", container, "a length field is longer than needed")
    for item in seen.unknown:
        context.report("TAG_UNKNOWN", container, f"tag {item.tag:X} does not belong here")
    for item in seen.legacy:
        context.report("TAG_LEGACY", container, f"tag {item.tag:X} is no longer part of the standard")
    layout = {row.tag: row for row in seen.LAYOUT}
    for row in seen.LAYOUT:
        if row.need is Need.MANDATORY and row.tag not in seen.order:
            context.report("TAG_MISSING", container, f"tag {row.tag:X} ({row.name}) is missing")
    places = list(layout)
    known = [places.index(item.tag) for item in items if item.tag in layout]
    if known != sorted(known):
        shown = " ".join(f"{tag:X}" for tag in seen.order)
        context.report("TAG_ORDER", container, f"the order is {shown}")
    for item in items:
        if item.tag in layout and len(item.value) not in layout[item.tag].sizes:
            context.report(
                "TAG_LENGTH", container, f"tag {item.tag:X} ({layout[item.tag].name}) has {len(item.value)} octets"
            )
