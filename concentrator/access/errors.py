"""What can go wrong with accounts, sessions and changes of the configuration."""

from __future__ import annotations

from concentrator.errors import LocalError


class AccessError(LocalError):
    """Root of the errors of this package."""


class UserError(AccessError):
    """An account cannot be made, changed or found as asked; or the file of accounts cannot be used."""


class NotLoggedInError(AccessError):
    """There is no such session, or it has ended."""


class RoleRefusedError(AccessError):
    """Whoever asked is known, and may not."""


class ConfigurationChangeError(AccessError):
    """A change of the configuration cannot be made, confirmed or taken back now."""
