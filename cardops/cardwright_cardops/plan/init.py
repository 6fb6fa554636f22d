"""``card init``: observe, plan, execute in one stage, with an authority of our own. One call for the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..errors import CardwrightError
from ..piv import containers
from ..piv.algorithms import ManagementAlgorithm
from ..piv.references import RETIRED_SLOTS
from ..program.runner import Executor
from ..secret import Secret
from .acts import STAGE, Circumstances, Pace, Witness
from .conduct import Execution, Progress, Recall, conduct
from .execute import Report, execute
from .inventory import Identity
from .local_authority import VALIDITY, LocalAuthority
from .observe import Look, observe_with_witness
from .planner import plan
from .policy import DevicePolicy
from .records import Journal, LateJournal, fold, require_not_reset


class PlanChanged(CardwrightError):
    """The card is not as it was when the plan was shown."""

    code = "PLAN_CHANGED"
    default_effect = "Nothing on the card was changed."
    default_advice = "Look at the new plan and start again; another program, or another card, came in between."


@dataclass(frozen=True, slots=True)
class Secrets:
    """What the person gave. ``new_puk`` (8 octets) is needed to set PUK or PIN; the other two are in use now.

    The PIN is the executor's affair: its custodian gives the new PIN, as the current one too.
    """

    new_puk: Secret | None = None
    puk: Secret | None = None
    management_key: Secret | None = None


def look_for(policy: DevicePolicy, *, stage: str = STAGE, one_batch: bool = False) -> Look:
    """What has to be read to plan for ``policy``."""
    slots = tuple(row.slot for row in policy.slots)
    if policy.recovered:
        slots += tuple(slot for slot in RETIRED_SLOTS if slot not in slots)
    tags = dict.fromkeys((containers.CHUID.tag, *policy.objects))
    return Look(slots=slots, objects=tuple(tags), one_batch=one_batch, stage=stage)


def personalize(
    policy: DevicePolicy,
    *,
    now: datetime,
    management_key_given: bool = False,
    puk_given: bool = False,
    expected: str = "",
    pace: Pace = Pace.STEP,
    management_algorithm: ManagementAlgorithm | None = None,
    certifies_existing: bool = True,
) -> Execution[Report]:
    """Observe, plan and execute in one stage.

    ``expected`` is the digest of the plan that somebody agreed to, "" for any. ``management_algorithm`` is that of the
    card's management key, where it is known beforehand: it saves round trips. ``certifies_existing`` is as for
    ``plan``. Raises what observe, plan and execute raise, JournalOfAnotherCard, PlanChanged.
    """
    look = look_for(policy, one_batch=pace is Pace.PHASE)
    inventory, sealed = yield from observe_with_witness(look, management_algorithm)
    entries = yield Recall(inventory.identity)
    require_not_reset(entries, inventory)
    records = fold(entries)
    steps = plan(policy, inventory, records, now=now, certifies_existing=certifies_existing)
    if expected and steps.digest != expected:
        raise PlanChanged("The plan for this card is not the one that was shown.")
    how = Circumstances(
        records,
        pace=pace,
        management_key_given=management_key_given,
        puk_given=puk_given,
        witness=Witness(management_algorithm, sealed) if management_algorithm is not None and sealed else None,
    )
    return (yield from execute(steps, inventory, how))


def initialize(
    executor: Executor,
    policy: DevicePolicy,
    secrets: Secrets,
    journal: Journal | Callable[[Identity], Journal],
    *,
    now: datetime,
    validity: timedelta = VALIDITY,
    expected: str = "",
    progress: Progress | None = None,
) -> Report:
    """Bring the card to ``policy``, and finish what an earlier session began if ``journal`` is that session's.

    ``journal`` may be what opens one, once the card is known. An empty
    report means that there was nothing to do. Raises what ``personalize`` raises, SecretMalformed.
    """
    kept: Journal = LateJournal(journal) if callable(journal) else journal
    authority = LocalAuthority(
        new_puk=secrets.new_puk,
        now=now,
        journal=kept,
        management_key=secrets.management_key,
        puk=secrets.puk,
        validity=validity,
    )
    execution = personalize(
        policy,
        now=now,
        management_key_given=secrets.management_key is not None,
        puk_given=secrets.puk is not None,
        expected=expected,
    )
    return conduct(execution, executor, authority, kept, progress)
