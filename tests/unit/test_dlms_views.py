"""Every class of the tables, served by our server and seen by our client, by the names of the Blue Book."""

import pytest

from concentrator.dlms import axdr
from concentrator.dlms.axdr import Data, DataType
from concentrator.dlms.client import Client, ClientSettings
from concentrator.dlms.cosem.classes import VERSIONS
from concentrator.dlms.cosem.views import ObjectView, object_of_class
from concentrator.dlms.errors import AccessError, EncodeError
from concentrator.dlms.logical_device import AssociationDefinition, LogicalDevice
from concentrator.dlms.server import Server
from concentrator.obis import Obis

from dlms_talk import talk

NAME = Obis(0, 0, 96, 50, 1, 255)
SAMPLES = {
    "CHOICE": axdr.long_unsigned(7), "array": axdr.array(axdr.unsigned(1)),
    "structure": axdr.structure(axdr.unsigned(1)),
    "octet-string": axdr.octet_string(b"\x01\x02"), "double-long-unsigned": axdr.double_long_unsigned(8),
    "double-long": axdr.double_long(-8), "long-unsigned": axdr.long_unsigned(9), "long": axdr.long(-9),
    "unsigned": axdr.unsigned(10), "integer": axdr.integer(-10), "enum": axdr.enumeration(2),
    "boolean": axdr.boolean(True),
    "bit-string": Data(DataType.BIT_STRING, "0110"), "visible-string": axdr.visible_string("x"),
    "date-time": Data(DataType.DATE_TIME, bytes(12)),
}  # fmt: skip
# What the association of the server has itself.
OWN = (12, 15)


def serve(made):
    device = LogicalDevice(1, (made,), [AssociationDefinition(16)])
    server = Server([device])
    client = Client(ClientSettings())
    talk(server, client.associate())
    return client, lambda conversation: talk(server, conversation)


@pytest.mark.parametrize("row", [row for row in VERSIONS.values() if row.class_id not in OWN], ids=str)
def test_every_class_is_served_and_seen_by_its_names(row):
    called = []
    values = {known.name: SAMPLES[known.type] for known in row.attributes[1:]}
    methods = {
        name: lambda given, name=name: called.append((name, given)) for name in row.methods if name != "-"
    }
    client, run = serve(object_of_class(row.class_id, NAME, values, methods, version=row.version))
    view = ObjectView(client, row.class_id, NAME, row.version)
    read = run(view.get_all())
    assert read.pop("logical_name") == axdr.octet_string(bytes(NAME))
    assert read == values
    for known in row.attributes[1:]:
        other = axdr.octet_string(b"other") if known.type == "octet-string" else SAMPLES[known.type]
        if known.settable:
            run(view.set(known.name, other))
            assert run(view.get(known.name)) == other
        else:
            with pytest.raises(AccessError, match="denied"):
                run(view.set(known.name, other))
    for name in methods:
        run(view.act(name, axdr.integer(0)))
    assert called == [(name, axdr.integer(0)) for name in methods]


def test_values_of_another_type_are_refused_on_both_sides():
    with pytest.raises(EncodeError, match="capture_period: is double-long-unsigned"):
        object_of_class(7, NAME, {"capture_period": axdr.unsigned(1)})
    client, run = serve(object_of_class(7, NAME, {"capture_period": axdr.double_long_unsigned(900)}))
    view = ObjectView(client, 7, NAME)
    with pytest.raises(EncodeError, match="not unsigned"):
        run(view.set("capture_period", axdr.unsigned(1)))
    with pytest.raises(AccessError, match="type-unmatched"):
        run(client.set(view._attribute(4), axdr.unsigned(1)))


def test_names_that_a_class_does_not_have_are_told_those_that_it_has():
    view = ObjectView(Client(ClientSettings()), 70, NAME)
    with pytest.raises(EncodeError, match=r"no attribute 'state'; it has .*control_state"):
        next(view.get("state"))
    with pytest.raises(EncodeError, match=r"no method 'off'; it has remote_disconnect"):
        next(view.act("off"))
    with pytest.raises(EncodeError, match="no method '-'"):
        next(ObjectView(Client(ClientSettings()), 12, NAME).act("-"))


def test_an_unknown_class_is_seen_by_numbers():
    made = object_of_class(8200, NAME, {})
    made.attributes[3] = axdr.unsigned(5)
    client, run = serve(made)
    assert run(ObjectView(client, 8200, NAME).get(3)) == axdr.unsigned(5)
