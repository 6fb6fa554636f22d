"""Attributes of a person to certificate fields: a document, so that every installation can say it its own way.

In TOML::

    common_name = ["{display_name} ({employeeNumber})", "{display_name}"]
    email = ["{mail}"]
    upn = ["{userPrincipalName}"]
    sid = ["{objectSid}"]
    organizational_units = ["{department}"]

Each field has templates; the first whose attributes are all there is taken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from .errors import FieldMissing
from .model import Person

_NAME = re.compile(r"\{([^{}]*)\}")
_FORM = re.compile(r"(?:[^{}]|\{[A-Za-z][A-Za-z0-9_-]*\})+")
OWN = ("login", "display_name", "mail")
"""Names besides those of ``Person.attributes``; they win over attributes of the same name."""


class CertificateMapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Templates for each field. Decoding a document raises msgspec.ValidationError for an unknown or malformed one."""

    common_name: tuple[str, ...] = ("{display_name}",)
    given_name: tuple[str, ...] = ("{givenName}",)
    surname: tuple[str, ...] = ("{sn}",)
    serial_number: tuple[str, ...] = ()
    user_id: tuple[str, ...] = ()
    email: tuple[str, ...] = ("{mail}",)
    upn: tuple[str, ...] = ("{userPrincipalName}",)
    sid: tuple[str, ...] = ("{objectSid}",)
    organizational_units: tuple[str, ...] = ()
    """One unit for each template that can be filled, in order."""
    required: tuple[str, ...] = ("common_name",)

    def __post_init__(self) -> None:
        fields = [name for name in self.__struct_fields__ if name != "required"]
        for name in fields:
            for template in getattr(self, name):
                if not _FORM.fullmatch(template):
                    raise ValueError(f"{name}: {template!r} is no template")
        if unknown := set(self.required) - set(fields):
            raise ValueError(f"required names no field: {', '.join(sorted(unknown))}")


@dataclass(frozen=True, slots=True)
class CertificateFields:
    """What a certificate may say of a person; "" for what is not known. ``upn`` and ``sid`` as for Windows logon."""

    common_name: str = field(repr=False)
    given_name: str = field(repr=False)
    surname: str = field(repr=False)
    serial_number: str = field(repr=False)
    user_id: str = field(repr=False)
    email: str = field(repr=False)
    upn: str = field(repr=False)
    sid: str = field(repr=False)
    organizational_units: tuple[str, ...] = field(repr=False)


def certificate_fields(mapping: CertificateMapping, person: Person) -> CertificateFields:
    """Fill the fields for a person; of an attribute with several values the first counts.

    Raises FieldMissing for a required field that stays empty.
    """
    known = {name: values[0] for name, values in person.attributes.items() if values}
    known |= {name: value for name in OWN if (value := getattr(person, name))}
    single = {
        name: _first(getattr(mapping, name), known)
        for name in mapping.__struct_fields__
        if name not in ("required", "organizational_units")
    }
    units = tuple(unit for template in mapping.organizational_units if (unit := _filled(template, known)))
    for name in mapping.required:
        if not (units if name == "organizational_units" else single[name]):
            made_of = ", ".join(attributes_of(mapping, name))
            raise FieldMissing(f"The certificate field {name} cannot be filled of the person's {made_of}.")
    return CertificateFields(**single, organizational_units=units)


def attributes_of(mapping: CertificateMapping, field: str) -> tuple[str, ...]:
    """Names of the attributes that a field is made of; none for what is no field."""
    templates = getattr(mapping, field) if field in mapping.__struct_fields__ and field != "required" else ()
    return tuple(dict.fromkeys(name for template in templates for name in _NAME.findall(template)))


def _first(templates: tuple[str, ...], known: Mapping[str, str]) -> str:
    return next((text for template in templates if (text := _filled(template, known))), "")


def _filled(template: str, known: Mapping[str, str]) -> str:
    if any(name not in known for name in _NAME.findall(template)):
        return ""
    return _NAME.sub(lambda found: known[found[1]], template).strip()
