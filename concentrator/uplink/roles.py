"""What a head-end may do on the concentrator's logical devices: its role, from the file of head-ends.

A reader reads everything. An operator may also ask for a live reading and have a push sent. An admin may also transfer
images for the update. Each client has the Security setup of its own association, and sees no other's.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from concentrator.dlms.cosem.objects import AccessMode, CosemObject
from concentrator.obis import Obis

# Ours: the profile of live readings of a meter (see `live_reading`).
LIVE_PROFILE = Obis(0, 0, 128, 4, 0, 255)
_SECURITY_SETUP_CLASS, _PUSH_SETUP_CLASS, _PROFILE_CLASS = 64, 40, 7


class Role(enum.StrEnum):
    """What a client may change."""

    READER = "reader"
    OPERATOR = "operator"
    ADMIN = "admin"

    def may_change(self, cosem_object: CosemObject) -> bool:
        """Whether it may write the attributes that can be written, and invoke the methods."""
        if self is Role.ADMIN:
            return True
        live = (cosem_object.class_id, cosem_object.obis) == (_PROFILE_CLASS, LIVE_PROFILE)
        return self is Role.OPERATOR and (live or cosem_object.class_id == _PUSH_SETUP_CLASS)


def access_of(role: Role, security_setup: Obis) -> Callable[[CosemObject, int], AccessMode]:
    """The access rights of a client to attributes; `security_setup` is its own."""

    def access(cosem_object: CosemObject, attribute: int) -> AccessMode:
        if cosem_object.class_id == _SECURITY_SETUP_CLASS and cosem_object.obis != security_setup:
            return AccessMode.NO_ACCESS
        if attribute in cosem_object.setters and role.may_change(cosem_object):
            return AccessMode.READ_AND_WRITE
        return AccessMode.READ_ONLY

    return access


def methods_of(role: Role, security_setup: Obis) -> Callable[[CosemObject], bool]:
    """Whether a client may invoke the methods of an object."""

    def may_invoke(cosem_object: CosemObject) -> bool:
        if cosem_object.class_id == _SECURITY_SETUP_CLASS:
            return cosem_object.obis == security_setup
        return role.may_change(cosem_object)

    return may_invoke
