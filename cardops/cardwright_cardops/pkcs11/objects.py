"""Find and read objects in a session, whatever the module answers."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

import pkcs11
from pkcs11 import Attribute, ObjectClass, PKCS11Error

from .cryptoki import text_of
from .faults import Fault
from .messages import ObjectRecord

_MAX_OBJECTS: Final = 2000
_MAX_VALUE: Final = 64 * 1024
KINDS: Final = (int(ObjectClass.CERTIFICATE), int(ObjectClass.PUBLIC_KEY), int(ObjectClass.PRIVATE_KEY))
READ: Final = (
    Attribute.CLASS,
    Attribute.ID,
    Attribute.LABEL,
    Attribute.KEY_TYPE,
    Attribute.EC_PARAMS,
    Attribute.EC_POINT,
    Attribute.MODULUS,
    Attribute.PUBLIC_EXPONENT,
    Attribute.SIGN,
    Attribute.DECRYPT,
    Attribute.DERIVE,
    Attribute.ALWAYS_AUTHENTICATE,
    Attribute.EXTRACTABLE,
    Attribute.LOCAL,
)


def find(session: Any, wanted: dict[Attribute, Any]) -> list[Any]:
    """C_FindObjects, bounded. Raises PKCS11Error, Fault."""
    found = []
    for entry in session.get_objects(wanted):
        found.append(entry)
        if len(found) > _MAX_OBJECTS:
            raise Fault("BAD_ANSWER", f"It lists more than {_MAX_OBJECTS} objects.")
    return found


def attributes_of(entry: Any, names: tuple[Attribute, ...]) -> dict[Attribute, Any]:
    """Those attributes that the module gives. Raises PKCS11Error."""
    try:
        return dict(entry.get_attributes(names))
    except PKCS11Error:
        values: dict[Attribute, Any] = {}
        for name in names:
            with suppress(pkcs11.AttributeTypeInvalid, pkcs11.AttributeSensitive, pkcs11.FunctionFailed):
                values[name] = entry[name]
        return values


def find_one(session: Any, kind: ObjectClass, identifier: bytes) -> Any:
    """The one object of that class and id. Raises PKCS11Error, Fault."""
    found = find(session, {Attribute.CLASS: kind, Attribute.ID: identifier})
    if not found:
        raise Fault("NO_SUCH_OBJECT")
    if len(found) > 1:
        raise Fault("SEVERAL_OBJECTS")
    return found[0]


def record_of(kind: int, values: dict[Attribute, Any]) -> ObjectRecord:
    """Attributes as total_mapper decodes them, oversized ones left out."""

    def raw(name: Attribute) -> bytes:
        value = values.get(name, b"")
        return value if isinstance(value, bytes) and len(value) <= _MAX_VALUE else b""

    return ObjectRecord(
        kind=kind,
        id=raw(Attribute.ID),
        label=text_of(raw(Attribute.LABEL)),
        key_type=values.get(Attribute.KEY_TYPE),
        ec_params=raw(Attribute.EC_PARAMS),
        ec_point=raw(Attribute.EC_POINT),
        modulus=raw(Attribute.MODULUS),
        exponent=raw(Attribute.PUBLIC_EXPONENT),
        value=raw(Attribute.VALUE),
        sign=bool(values.get(Attribute.SIGN)),
        decrypt=bool(values.get(Attribute.DECRYPT)),
        derive=bool(values.get(Attribute.DERIVE)),
        always_authenticate=bool(values.get(Attribute.ALWAYS_AUTHENTICATE)),
        extractable=values.get(Attribute.EXTRACTABLE),
        local=values.get(Attribute.LOCAL),
    )
