"""What can be wrong with a firmware image, or with an order about a campaign."""

from __future__ import annotations

from concentrator.collection.errors import CollectionError
from concentrator.errors import LocalError


class FirmwareImageError(CollectionError, LocalError):
    """An image that no meter is given: not signed by a trusted key, or not what its manifest says; the text tells."""


class CampaignError(CollectionError, LocalError):
    """A campaign that makes no sense, or cannot do what was ordered now; the text says why."""
