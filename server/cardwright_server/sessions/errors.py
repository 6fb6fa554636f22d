"""Why a card session does not begin, or ends before its goal."""

from __future__ import annotations

from cardwright_cardops.errors import CardwrightError


class SessionError(CardwrightError):
    """Base of the errors of card sessions."""


class CardInSession(SessionError):
    """Another session holds this card."""

    code = "CARD_IN_SESSION"
    default_effect = "Nothing was sent to the card."
    default_advice = "Wait until the other session has ended; one that was cut off ends by itself within a minute."


class SessionLost(SessionError):
    """The session's hold on the card ran out, or another session took the card over."""

    code = "SESSION_LOST"
    default_effect = "Nothing more is sent to the card; what is recorded stays."
    default_advice = "Start again: the next session looks at the card and does the rest."


class LineLost(SessionError):
    """The stream ended, or an answer did not come in time."""

    code = "LINE_LOST"
    default_effect = "The last batch may have been carried out or not."
    default_advice = "Start again: the next session looks at the card and does the rest."


class SessionCancelled(SessionError):
    """The workstation gave up."""

    code = "SESSION_CANCELLED"
    default_effect = "Nothing more is sent to the card."
    default_advice = "Start again whenever you like: what is done is not repeated."


class ConsentRefused(SessionError):
    """The person did not agree to the plan, or agreed to another one."""

    code = "CONSENT_REFUSED"
    default_effect = "Nothing on the card was changed."
    default_advice = "Start again and agree to the plan that is shown."


class SessionProtocolBroken(SessionError):
    """A message came out of turn, or has a value that this contract does not allow."""

    code = "SESSION_PROTOCOL"
    default_effect = "Nothing more is sent to the card."
    default_advice = "Update the workstation's program and start again."


class PeerTooOld(SessionError):
    """The workstation does not know what the session needs: protocol, kind of step or item, or size of a batch."""

    code = "PEER_TOO_OLD"
    default_effect = "Nothing that it does not know was sent to it."
    default_advice = "Update the workstation's program and start again."


class WrongCard(SessionError):
    """The card is not the one that the request or the preview is for."""

    code = "SESSION_OTHER_CARD"
    default_effect = "Nothing on the card was changed."
    default_advice = "Put in the card that the request names, and start again."


class ClearSecretsRefused(SessionError):
    """The policy does not let this workstation see a PUK, a management key or an imported key."""

    code = "CLEAR_SECRETS_REFUSED"
    default_effect = "Nothing on the card was changed."
    default_advice = "Use a trusted station, or a policy that allows it."


class SealedSessionNeeded(ClearSecretsRefused):
    """The policy lets no workstation see a PUK, a management key or an imported key, and no session here is sealed."""

    code = "SEALED_SESSION_NEEDED"
    default_advice = "Use a policy with clear_secrets = \"trusted_station\", which a trusted station carries out."


class OriginTooWeak(SessionError):
    """The policy wants better proof of where a key is made than this session can give."""

    code = "ORIGIN_TOO_WEAK"
    default_effect = "No key was made and no certificate issued for this slot."
    default_advice = "Use a trusted station, or a policy that accepts this proof."


class CardEnds(SessionError):
    """The card itself ends so soon that no certificate is issued for it any more."""

    code = "CARD_ENDS"
    default_effect = "Nothing on the card was changed."
    default_advice = "Have the card replaced."


class EnrolmentMissing(SessionError):
    """The policy wants biometric records on the card, and there is no enrolment that took them."""

    code = "ENROLMENT_MISSING"
    default_effect = "Nothing on the card was changed."
    default_advice = "Use a policy without these objects; this server takes no biometric records yet."


class CardNotProven(SessionError):
    """The card did not prove that it is the one that was issued, so no PUK is released for it."""

    code = "CARD_NOT_PROVEN"
    default_effect = "Nothing on the card was changed, and no secret left the server."
    default_advice = "If this is the person's own card, have it replaced; its record may have been copied."


class RecycledElsewhere(SessionError):
    """Cards are erased at issuance stations, or over an operator's own connection."""

    code = "RECYCLED_ELSEWHERE"
    default_effect = "Nothing was sent to the card."
    default_advice = "Put the card into a reader of an issuance station."


class NotAtGoal(SessionError):
    """After the last step the card is not as the policy wants it; its certificates stay on hold."""

    code = "SESSION_NOT_AT_GOAL"
    default_effect = "The steps were done, but the card is not released."
    default_advice = "Start again: the next session looks at the card and does the rest."


class NotInUse(SessionError):
    """Only a card in use is updated without a request for it, or unlocked, and only while it is in use."""

    code = "CARD_NOT_IN_USE"
    default_effect = "Nothing was sent to the card."
    default_advice = "A new card is issued by a request; the help desk knows why one that was in use is out of it."

    def __init__(self, state: str, what: str, effect: str | None = None) -> None:
        super().__init__(f"The device is {state}: only one in use is {what}.", effect=effect)
        self.state = state


class NothingToDo(SessionError):
    """No device or open request fits the card and what the session is for."""

    code = "SESSION_WITHOUT_REQUEST"
    default_effect = "Nothing was sent to the card."
    default_advice = "Make a request for this device first, or put in the card that the request is for."
