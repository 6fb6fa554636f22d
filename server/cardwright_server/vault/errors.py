"""What a vault can answer instead of a result."""

from __future__ import annotations

from cardwright_cardops.errors import CardwrightError


class VaultError(CardwrightError):
    """Base of the vault's errors; raised as one of its kinds only."""

    code = "VAULT_FAILED"
    default_effect = "Nothing was signed or given out."
    default_advice = "See the vault's audit for what it did last, then try again."


class VaultLocked(VaultError):
    """The vault runs, but nobody has unlocked it since it started."""

    code = "VAULT_LOCKED"
    default_advice = "Whoever knows the vault's passphrase runs 'python -m cardwright_server.vault admin unlock'."


class VaultUnavailable(VaultError):
    """The vault's process is not there, did not answer in time, or cannot write its audit."""

    code = "VAULT_UNAVAILABLE"
    default_effect = "Whether the vault carried it out is not known; asking again does no harm."
    default_advice = "Check that the vault runs and that its disk has room, then try again."


class HsmUnusable(VaultUnavailable):
    """The HSM's module cannot be loaded, does not answer, or shows no token of the label."""

    code = "HSM_UNUSABLE"
    default_effect = "The vault stays locked; nothing was signed or given out."
    default_advice = (
        "Check hsm_module and hsm_token under [vault], and what the module reads from the environment "
        "(SOFTHSM2_CONF): also in the service's unit. Then try again."
    )


class VaultRefused(VaultError):
    """The vault will not do this. ``reason`` is a stable word, for example ``profile`` or ``issuer``."""

    code = "VAULT_REFUSED"
    default_advice = "Correct the request: the vault checks what it signs and gives out, whoever asks."

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class VaultQuota(VaultError):
    """As much of this kind was done as the vault allows in an hour or a day.

    ``limit`` names the quota, ``retry_after`` is in seconds.
    """

    code = "VAULT_QUOTA"
    default_advice = "Wait; if this is not an attack, whoever knows the vault's passphrase can raise the quota."

    def __init__(self, limit: str, retry_after: int) -> None:
        super().__init__(f"The vault's quota '{limit}' is used up; it has room again in {retry_after} s.")
        self.limit = limit
        self.retry_after = retry_after


class VaultUnlockRefused(VaultError):
    """The passphrase, or the PIN of the HSM, is wrong."""

    code = "VAULT_UNLOCK_REFUSED"
    default_effect = "The vault stays as it was; nothing was lost."
    default_advice = "Type it again. An HSM counts wrong PINs and locks itself; the vault never repeats one."


class VaultDamaged(VaultError):
    """A file of the vault is damaged, missing or older than what the vault's audit says."""

    code = "VAULT_DAMAGED"
    default_effect = "The vault did not open; no file was changed."
    default_advice = "Restore the vault from its backup ('vault admin restore'), which begins a new epoch."


class VaultExists(VaultError):
    """There is a vault already, or it is open in another process."""

    code = "VAULT_EXISTS"
    default_effect = "Nothing was changed."
    default_advice = "Choose another directory, or stop the process that has this vault open."
