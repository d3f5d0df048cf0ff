"""Short names: 16-bit numbers for the attributes and methods of an object (Blue Book part 2, clause 4.1.3).

Attribute n is at the base name and 8 for each attribute on; methods follow at an offset that each class has.
"""

from __future__ import annotations

from collections.abc import Iterable

from concentrator.dlms.cosem.objects import CosemObject

ASSOCIATION_SN_BASE = 0xFA00
READ_BY_LOGICAL_NAME = 0xFA30
CHANGE_SECRET = 0xFA50
REPLY_TO_HLS = 0xFA58
_FIRST_BASE = 0x0100
# Class and version (None: any) -> offset of method 1.
_METHOD_OFFSETS: dict[tuple[int, int | None], int] = {
    (3, None): 0x28, (4, None): 0x38, (5, None): 0x48, (6, None): 0x30, (7, None): 0x58, (8, None): 0x60,
    (9, None): 0x20, (11, None): 0x10, (15, None): 0x60, (17, None): 0x20, (18, None): 0x40,
    (20, None): 0x50, (40, None): 0x38, (42, None): 0x60, (61, None): 0x28, (64, 0): 0x28, (64, None): 0x30,
    (70, None): 0x20, (72, 0): 0x60, (72, None): 0x70,
}  # fmt: skip


def method_offset(class_id: int, version: int | None = None) -> int | None:
    """Where the methods of a class begin; None where the standard gives it none or it is not known here."""
    return _METHOD_OFFSETS.get((class_id, version), _METHOD_OFFSETS.get((class_id, None)))


def assign_names(objects: Iterable[CosemObject]) -> dict[int, CosemObject]:
    """Base names for objects, one behind the other, clear of the reserved ones."""
    names: dict[int, CosemObject] = {}
    base = _FIRST_BASE
    for cosem_object in objects:
        attributes = max((1, *cosem_object.attributes, *cosem_object.setters))
        offset = method_offset(cosem_object.class_id, cosem_object.version) or 0
        length = max(8 * attributes, offset + 8 * max(cosem_object.methods, default=0))
        if base < ASSOCIATION_SN_BASE <= base + length:
            raise ValueError("more objects than short names")
        names[base] = cosem_object
        base += (length + 7) // 8 * 8
    return names
