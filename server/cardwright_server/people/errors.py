"""What people and operators refuse."""

from __future__ import annotations

from cardwright_cardops.errors import CardwrightError


class PeopleError(CardwrightError):
    """Base of the errors of people."""

    default_effect = "Nothing was changed."


class NoSuchPerson(PeopleError):
    """There is no such person here."""

    code = "NO_SUCH_PERSON"
    default_advice = "Search for the person again; they may have been removed."


class NoSuchGroup(PeopleError):
    """There is no such group here."""

    code = "NO_SUCH_GROUP"
    default_advice = "List the groups again."


class NoSuchOperator(PeopleError):
    """There is no such operator here."""

    code = "NO_SUCH_OPERATOR"
    default_advice = "List the operators again."


class NoDirectory(PeopleError):
    """The organization keeps its persons here, and in no directory."""

    code = "NO_DIRECTORY"
    default_advice = "Create the person, or configure the directory."


class ImportRunning(PeopleError):
    """Everybody of a directory is being taken over already: it is asked once at a time."""

    code = "IMPORT_RUNNING"
    default_advice = "Wait until it is done."


class LoginTaken(PeopleError):
    """Someone else has this login."""

    code = "LOGIN_TAKEN"
    default_advice = "Look whether the person is known already, or choose another login."


class KeyTaken(PeopleError):
    """The key is registered already: one key is one account."""

    code = "KEY_TAKEN"
    default_advice = "Make a new key for this account."


class DirectoryOwned(PeopleError):
    """What comes from a directory is changed there."""

    code = "DIRECTORY_OWNED"
    default_advice = "Change it in the directory, then import it again."


class NotErasable(PeopleError):
    """A person who has not left, or who has an operator account, is not erased."""

    code = "NOT_ERASABLE"
    default_advice = "Record that the person left, and close the operator account, first."


class LastHolder(PeopleError):
    """Nobody would be left who can give rights or make accounts."""

    code = "LAST_HOLDER"
    default_advice = "Give the role to another operator first."


class BadAttribute(PeopleError):
    """An attribute has a name or value that is too long, or there are too many."""

    code = "BAD_ATTRIBUTE"
    default_advice = "Correct the attributes."


class FieldMissing(PeopleError):
    """A certificate field cannot be filled from what is known of a person."""

    code = "CERTIFICATE_FIELD_MISSING"
    default_effect = "No certificate was made."
    default_advice = "Add the attribute to the person, or change the mapping."
