"""What device policies refuse."""

from __future__ import annotations

from collections.abc import Sequence

from cardwright_cardops.errors import CardwrightError


class PolicyError(CardwrightError):
    """Base of the errors of device policies."""

    default_effect = "Nothing was changed."


class PolicyInvalid(PolicyError):
    """A policy document that cannot be read: no TOML, an unknown field or a wrong value. The text names the path."""

    code = "POLICY_INVALID"
    default_advice = "Correct the document at the place that is named."


class PolicyContradictory(PolicyError):
    """A policy that says things that cannot hold together. ``findings`` has each with its path."""

    code = "POLICY_CONTRADICTORY"
    default_advice = "Correct the document at the places that are named."

    def __init__(self, findings: Sequence[str]) -> None:
        super().__init__("the policy contradicts itself: " + "; ".join(findings))
        self.findings = tuple(findings)


class PolicyUnreachable(PolicyContradictory):
    """A policy that no card could come to with what this server certifies, archives and writes.

    ``findings`` has each reason with its path.
    """

    code = "POLICY_UNREACHABLE"

    def __init__(self, findings: Sequence[str]) -> None:
        PolicyError.__init__(self, "no card could be as this policy wants it: " + "; ".join(findings))
        self.findings = tuple(findings)


class ComplianceRefused(PolicyError):
    """The policy complies with FIPS 201-3, which does not allow this. ``reasons`` are codes."""

    code = "COMPLIANCE_REFUSED"
    default_advice = "Do it the way FIPS 201-3 allows, or use a policy that does not claim to comply."

    def __init__(self, sentences: Sequence[str], reasons: Sequence[str]) -> None:
        super().__init__("refused under compliance = piv: " + "; ".join(sentences))
        self.reasons = tuple(reasons)


class NoSuchPolicy(PolicyError):
    """There is no such policy, version or assignment here."""

    code = "NO_SUCH_POLICY"
    default_advice = "List the policies again."


class NoPolicyForPerson(PolicyError):
    """No group of the person has a policy for this kind of device."""

    code = "NO_POLICY_FOR_PERSON"
    default_advice = "Put the person into a group that a policy is assigned to, or assign one to a group of theirs."


class PolicyAmbiguous(PolicyError):
    """The person's groups have several policies for this kind of device. ``names`` has them."""

    code = "POLICY_AMBIGUOUS"
    default_advice = "Say which policy is meant."

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__("several policies fit: " + ", ".join(names))
        self.names = tuple(names)
