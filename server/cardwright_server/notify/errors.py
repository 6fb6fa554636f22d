"""What can go wrong with templates, addresses and mail."""

from __future__ import annotations

from cardwright_cardops.errors import CardwrightError


class TemplateInvalid(CardwrightError):
    """The text of a mail names something that this event does not have, or is no text for a mail."""

    code = "TEMPLATE_INVALID"
    default_effect = "The text in use stays as it was."
    default_advice = "Use only the placeholders that are listed for the event, and keep the subject on one line."


class AddressUnusable(CardwrightError):
    """A mail address is not one that can be written into a header."""

    code = "ADDRESS_UNUSABLE"
    default_effect = "No mail is sent to it."
    default_advice = "Correct the address in the directory or the store."
