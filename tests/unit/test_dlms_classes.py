"""The tables of interface classes, held against those of two independent stacks."""

import inspect

import pytest

from concentrator.dlms.cosem.classes import CLASSES, VERSIONS, interface_class

# Where a peer says otherwise, with what the Blue Book has.
GURUX_DIFFERS = {
    (4, 0): "Extended register has the method reset",
    (12, 2): "access_rights_list came with version 2, security_setup_reference with version 3",
    (23, 0): "the object is the twisted pair's setup, which is class 24",
    (65, 0): "parameter_list_name came with version 1",
    (70, 1): "Disconnect control has version 0 only",
    (28, 0): "list_of_allowed_callers came with version 2",
    (27, 0): "Modem configuration has three attributes beside logical_name",
}
PYDLMS_NAMES_DIFFER = {64, 77, 81, 83, 84, 85, 90, 92}
PYDLMS_METHODS_DIFFER = {(12, 4), (64, 0), (7, 1)}


def gurux_objects():
    objects = pytest.importorskip("gurux_dlms.objects")
    for name, kind in inspect.getmembers(objects, inspect.isclass):
        if name.startswith("GXDLMS"):
            try:
                made = kind()
            except TypeError:
                continue
            if hasattr(made, "objectType") and hasattr(made, "getAttributeCount"):
                yield int(made.objectType), made.version, made.getAttributeCount(), made.getMethodCount()


def test_gurux_counts_attributes_and_methods_alike():
    compared = 0
    for class_id, version, attributes, methods in gurux_objects():
        if class_id in CLASSES and (class_id, version) not in GURUX_DIFFERS:
            ours = interface_class(class_id, version)
            assert (len(ours.attributes), len(ours.methods)) == (attributes, methods), ours.name
            compared += 1
    assert compared >= 45


def test_pydlms_names_attributes_and_methods_alike():
    registry = pytest.importorskip("pydlms.cosem.interface_classes").REGISTRY
    compared = 0
    for key, theirs in registry.items():
        ours = VERSIONS.get((int(key[0]), int(key[1])))
        if ours is None:
            continue
        compared += 1
        assert len(ours.attributes) == len(theirs.attributes), ours.name
        if ours.class_id not in PYDLMS_NAMES_DIFFER:
            assert [a.name for a in ours.attributes] == [name.lower() for name in theirs.attributes], (
                ours.name
            )
        if (ours.class_id, ours.version) not in PYDLMS_METHODS_DIFFER:
            assert [m.lower() for m in theirs.methods] == list(ours.methods), ours.name
    assert compared >= 60


@pytest.mark.parametrize(
    "class_id",
    [
        1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15, 17, 18, 20, 21, 22, 61, 63, 64, 40, 70, 71, 111, 112, 113, 115,
        72, 73, 74, 76, 77, 50, 51, 52, 53, 80, 81, 82, 83, 84, 85, 86, 90, 91, 92, 41, 42, 48, 30, 68, 47,
    ],
)  # fmt: skip
def test_every_class_that_meters_have_is_listed(class_id):
    row = CLASSES[class_id]
    assert row.attributes[0].name == "logical_name"
    assert [attribute.number for attribute in row.attributes] == list(range(1, len(row.attributes) + 1))


def test_versions_that_are_not_listed_are_read_by_the_one_before():
    assert interface_class(64, 0).methods == ("security_activate", "global_key_transfer")
    assert interface_class(64, 9).version == 1
    assert len(interface_class(15, 0).attributes) == 8
    assert interface_class(12, 3).method_name(8) == "reply_to_hls_authentication"
    assert interface_class(12, 3).method_name(1) == "method 1"


def test_a_class_that_nobody_knows_still_reads_by_number():
    row = interface_class(8199, 3)
    assert (row.name, row.attribute_name(1), row.attribute_name(4)) == (
        "class 8199",
        "logical_name",
        "attribute 4",
    )
