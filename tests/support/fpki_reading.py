"""Our reading of the Federal PKI's profile facts: which features a certificate of a profile has, and has not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, SubjectInformationAccessOID

E = TypeVar("E", bound=x509.ExtensionType)
_FASCN = "2.16.840.1.101.3.6.6"
_UPN = "1.3.6.1.4.1.311.20.2.3"
_USAGES = {
    "digital_signature": "digital_signature",
    "non_repudiation": "content_commitment",
    "key_encipherment": "key_encipherment",
    "data_encipherment": "data_encipherment",
    "key_agreement": "key_agreement",
    "key_cert_sign": "key_cert_sign",
    "crl_sign": "crl_sign",
}
_ABSENT = {
    "policy_mappings": x509.ObjectIdentifier("2.5.29.33"),
    "ian": x509.ObjectIdentifier("2.5.29.18"),
    "name_constraints": x509.ObjectIdentifier("2.5.29.30"),
    "policy_constraints": x509.ObjectIdentifier("2.5.29.36"),
    "inhibit_any": x509.ObjectIdentifier("2.5.29.54"),
    "sub_dir_attr": x509.ObjectIdentifier("2.5.29.9"),
}


def findings(certificate: x509.Certificate, profile: Mapping[str, Any]) -> list[str]:
    """What is against the profile, as ``section: feature``; empty if nothing."""
    found = list(_policies(certificate, profile["cert_policies"].get("values", {})))
    longest = profile["validity"].get("values", {}).get("validity_period_maximum")
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    if longest is not None and life.days > int(longest):
        found.append("validity: too long")
    key = certificate.public_key()
    strong = isinstance(key, rsa.RSAPublicKey) and 2048 <= key.key_size <= 4096
    if not strong and not (isinstance(key, ec.EllipticCurvePublicKey) and key.key_size in (256, 384)):
        found.append("subject_public_key_info: key")
    for section, features in _features(certificate).items():
        wanted = profile[section]
        named = {_plain(one): one for kind in ("required", "forbidden") for one in wanted.get(kind, [])}
        forbidden = {_plain(one) for one in wanted.get("forbidden", [])}
        for feature in named:
            if feature not in features and not (section == "eku" and feature.startswith("oid ")):
                continue
            if feature in forbidden and features.get(feature):
                found.append(f"{section}: has {feature}")
            if feature == "is_critical" and not features["present"]:
                continue
            if feature not in forbidden and not features.get(feature) and "present" not in forbidden:
                found.append(f"{section}: lacks {feature}")
        if features["present"] and section == "eku" and "other" in forbidden:
            allowed = {_oid(one) for one in wanted.get("required", []) + wanted.get("optional", [])}
            found.extend(f"eku: other {oid}" for oid in _extended(certificate) if oid not in allowed)
    return found


def _features(certificate: x509.Certificate) -> dict[str, dict[str, bool]]:
    usage, names = _value(certificate, x509.KeyUsage), _value(certificate, x509.SubjectAlternativeName)
    constraints, points = _value(certificate, x509.BasicConstraints), _value(certificate, x509.CRLDistributionPoints)
    access = list(_value(certificate, x509.AuthorityInformationAccess) or ())
    repository = list(_value(certificate, x509.SubjectInformationAccess) or ())
    issuer = _value(certificate, x509.AuthorityKeyIdentifier)
    crls = [name.value for one in points or () for name in one.full_name or ()]
    issuers = [one for one in access if one.access_method == AuthorityInformationAccessOID.CA_ISSUERS]
    answers = [one for one in access if one.access_method == AuthorityInformationAccessOID.OCSP]
    places = [one for one in repository if one.access_method == SubjectInformationAccessOID.CA_REPOSITORY]
    others = names.get_values_for_type(x509.OtherName) if names is not None else []
    uris = names.get_values_for_type(x509.UniformResourceIdentifier) if names is not None else []
    extended = {f"oid {one}": True for one in _extended(certificate)}
    made: dict[str, dict[str, bool]] = {
        "key_usage": {mine: bool(usage and getattr(usage, theirs)) for mine, theirs in _USAGES.items()},
        "san": {
            "other_name_piv_fasc_n": any(one.type_id.dotted_string == _FASCN for one in others),
            "other_name_upn": any(one.type_id.dotted_string == _UPN for one in others),
            "uniform_resource_identifier_chuid": any(one.startswith("urn:uuid:") for one in uris),
            "dns_name": bool(names and names.get_values_for_type(x509.DNSName)),
            "ip_address": bool(names and names.get_values_for_type(x509.IPAddress)),
            "directory_name": bool(names and names.get_values_for_type(x509.DirectoryName)),
        },
        "crldp": {"http": any(one.startswith("http://") for one in crls)},
        "aia": {
            "ca_issuers_present": bool(issuers),
            "ca_issuers_http": any(one.access_location.value.startswith("http://") for one in issuers),
            "ca_issuers_https": any(one.access_location.value.startswith("https://") for one in issuers),
            "ocsp_present": bool(answers),
            "ocsp_https": any(one.access_location.value.startswith("https://") for one in answers),
        },
        "sia": {
            "ca_repository_present": bool(places),
            "ca_repository_http": any(one.access_location.value.startswith("http://") for one in places),
        },
        "akid": {
            "key_id": issuer is not None and issuer.key_identifier is not None,
            "name_and_serial": issuer is not None and issuer.authority_cert_serial_number is not None,
        },
        "skid": {},
        "cert_policies": {},
        "basic_constraints": {"ca_true": constraints is not None and constraints.ca},
        "ocsp_nocheck": {},
        "eku": extended,
        "subject": {"is_self_issued": certificate.subject == certificate.issuer},
    }
    oids = {
        "key_usage": "2.5.29.15",
        "san": "2.5.29.17",
        "crldp": "2.5.29.31",
        "aia": "1.3.6.1.5.5.7.1.1",
        "sia": "1.3.6.1.5.5.7.1.11",
        "akid": "2.5.29.35",
        "skid": "2.5.29.14",
        "cert_policies": "2.5.29.32",
        "basic_constraints": "2.5.29.19",
        "ocsp_nocheck": "1.3.6.1.5.5.7.48.1.5",
        "eku": "2.5.29.37",
        **{name: oid.dotted_string for name, oid in _ABSENT.items()},
    }
    for name, oid in oids.items():
        extension = next((one for one in certificate.extensions if one.oid.dotted_string == oid), None)
        made.setdefault(name, {})["present"] = extension is not None
        made[name]["is_critical"] = extension is not None and extension.critical
    made["subject"]["present"] = bool(list(certificate.subject))
    return made


def _policies(certificate: x509.Certificate, values: Mapping[str, str]) -> Iterator[str]:
    value = _value(certificate, x509.CertificatePolicies)
    asserted = {one.policy_identifier.dotted_string for one in value or ()}
    listed = set(values.get("required_policy_list", "").split())
    if not listed:
        return
    match values["match_mode"]:
        case "all" if not listed <= asserted:
            yield "cert_policies: not all"
        case "one" if len(listed & asserted) != 1:
            yield "cert_policies: not one"
        case "any" if not listed & asserted:
            yield "cert_policies: none"
    if values.get("permit_others") == "no/opt" and asserted - listed:
        yield "cert_policies: others"


def _value(certificate: x509.Certificate, kind: type[E]) -> E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _extended(certificate: x509.Certificate) -> list[str]:
    return [one.dotted_string for one in _value(certificate, x509.ExtendedKeyUsage) or ()]


def _plain(feature: str) -> str:
    """``oid 1.2.3`` for extended key usages, else the word before the bracket."""
    return f"oid {_oid(feature)}" if feature.startswith("oid_") else feature.partition(" ")[0]


def _oid(feature: str) -> str:
    return feature.partition("[")[2].rstrip("]")
