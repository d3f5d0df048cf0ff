# ruff: noqa: N802, N803, N815 - the names are those of Gurux's callbacks
"""Foreign DLMS servers behind the product's control desk: Gurux's server and pydlms's simulator, in this process."""

from __future__ import annotations

import asyncio
import itertools

from concentrator.collection.control.desk import ControlDesk, Dialogue
from concentrator.collection.control.rules import OrderRules
from concentrator.collection.conversation import converse
from concentrator.collection.meter_orders import check_order
from concentrator.collection.registry import PendingOrder
from concentrator.config import OrdersSection
from concentrator.dlms.client import DEFAULT_CONFORMANCE, Client, ClientSettings
from concentrator.dlms.codes import Conformance
from concentrator.links.errors import AnswerTimeoutError
from concentrator.orders import Order
from concentrator.store.store import Store

IDENTITY = "FOREIGN1"
CLIENT_SAP = 16


class ForeignRig:
    """The control desk with one foreign meter: `exchange` gives an APDU to it, and what it answers.

    `cut_after` lets so many more requests through; the meter loses its power with the next one, of which it answers
    nothing. `cut_before_answer` lets it do that one first.
    """

    def __init__(self, directory, clock, exchange, reset=lambda: None, *, lists=True) -> None:
        self.clock = clock
        self.conformance = (
            DEFAULT_CONFORMANCE if lists else DEFAULT_CONFORMANCE & ~Conformance.MULTIPLE_REFERENCES
        )
        self.store = Store(directory / "store.db", clock)
        self.rules = OrderRules.from_settings(OrdersSection())
        self.desk = ControlDesk(self.store, clock, self.rules)
        self.exchange, self.reset = exchange, reset
        self.cut_after = None
        self.cut_before_answer = True
        self._numbers = itertools.count(1)

    async def send(self, apdu) -> None:
        self._answers = []
        if self.cut_after is not None:
            self.cut_after -= 1
            if self.cut_after < 0:
                if self.cut_after == -1 and self.cut_before_answer:
                    self.exchange(apdu)
                return
        self._answers = self.exchange(apdu)

    async def receive(self, _timeout_s):
        if not self._answers:
            raise AnswerTimeoutError("no answer")
        return self._answers.pop(0)

    async def _associated(self):
        client = Client(ClientSettings(CLIENT_SAP, 1, max_pdu_size=0xFFFF, conformance=self.conformance))

        async def carry(conversation, /):
            return await converse(conversation, self, 1)

        await carry(client.associate())
        return client, carry

    async def order(self, operation, **arguments):
        """Associate, carry an order out, and give its result."""
        payload = {
            "id": f"f{next(self._numbers)}", "op": operation, "target": IDENTITY,
            "args": {**arguments, "confirm": IDENTITY},
        }  # fmt: skip
        if operation.startswith("read"):
            del payload["args"]["confirm"]
        order = Order.from_payload(payload, "the concentrator itself")
        operation = check_order(order, rules=self.rules)
        client, carry = await self._associated()
        dialogue = Dialogue(IDENTITY, "counter", client, None, carry)
        await self.desk.associated(dialogue)
        if not operation.changes_meter:
            return await carry(operation.converse(client, order))
        pending = PendingOrder(order, asyncio.get_running_loop().create_future())
        try:
            return await self.desk.carry_out(pending, operation, dialogue)
        finally:
            if self.cut_after is None:
                await carry(client.release())

    async def power_back(self) -> None:
        """The meter is there again; the concentrator asks what came of what was left open."""
        self.cut_after = None
        self.reset()
        client, carry = await self._associated()
        await self.desk.associated(Dialogue(IDENTITY, "counter", client, None, carry))
        await carry(client.release())

    async def trail(self):
        return await self.store.audit_entries(100)

    def close(self) -> None:
        self.store.close()


def gurux_server(objects):
    """Gurux's server without security, with these objects; gives a function that takes APDUs."""
    from gurux_dlms import GXByteBuffer, ValueEventArgs
    from gurux_dlms.enums import (
        AccessMode,
        Authentication,
        InterfaceType,
        MethodAccessMode,
        ObjectType,
        SourceDiagnostic,
    )
    from gurux_dlms.GXDLMSLNCommandHandler import GXDLMSLNCommandHandler as Handler
    from gurux_dlms.internal._GXCommon import _GXCommon
    from gurux_dlms.internal._GXDataInfo import _GXDataInfo
    from gurux_dlms.objects import GXDLMSAssociationLogicalName
    from gurux_dlms.secure import GXDLMSSecureServer

    if not hasattr(ValueEventArgs, "__iter__"):
        # As published, its server fails on each ACTION: it makes a list of what is one.
        ValueEventArgs.__iter__ = lambda self: iter([self])

    class Server(GXDLMSSecureServer):
        def __init__(self) -> None:
            association = GXDLMSAssociationLogicalName()
            super().__init__(True, InterfaceType.WRAPPER)
            self.items.append(association)
            self.acted = {}
            for one in objects:
                self.items.append(one)
            association.objectList = self.items
            # Its blocks do not work: everything goes whole.
            self.settings.maxPduSize = 0xFFFF
            self.initialize()

        def isTarget(self, serverAddress, clientAddress):
            self.assignedAssociation = self.items[0]
            return True

        def onValidateAuthentication(self, authentication, password):
            return (
                SourceDiagnostic.NONE
                if authentication == Authentication.NONE
                else SourceDiagnostic.AUTHENTICATION_FAILURE
            )

        def onFindObject(self, objectType, sn, ln):
            return None

        def onGetAttributeAccess(self, arg):
            return AccessMode.READ_WRITE

        def onGetMethodAccess(self, arg):
            return MethodAccessMode.ACCESS

        def onPreAction(self, args):
            for one in args:
                act = self.acted.get((one.target.logicalName, one.index))
                if act is not None:
                    act(one.parameters)
                    one.handled, one.value = True, 0

        def _nothing(self, *_arguments):
            return None

        onPreGet = onPostGet = onPreRead = onPostRead = onPreWrite = onPostWrite = _nothing
        notifyRead = _nothing
        onConnected = onInvalidConnection = onDisconnected = onPostAction = _nothing

    server = Server()

    def write(apdu):
        """SET, whole. Its handler of SET calls what it does not have (1.0.203): value and object are its own."""
        class_id, name, index = int.from_bytes(apdu[3:5], "big"), bytearray(apdu[5:11]), apdu[11]
        value = _GXCommon.getData(server.settings, GXByteBuffer(apdu[13:]), _GXDataInfo())
        target = server.items.findByLN(ObjectType(class_id), _GXCommon.toLogicalName(name))
        if target is None:
            return bytes((0xC5, 1, apdu[2], 4))
        event = ValueEventArgs(server, target, index, 0, None)
        event.value = value
        target.setValue(server.settings, event)
        return bytes((0xC5, 1, apdu[2], int(event.error)))

    def exchange(apdu):
        """One APDU through its handlers; its framing does not get as far as calling them (1.0.203)."""
        server.replyData.clear()
        tag = apdu[0]
        if tag == 0x60:
            server.handleAarqRequest(GXByteBuffer(apdu), None)
        elif tag == 0x62:
            return [bytes.fromhex("6303800100")]
        elif tag == 0xC1:
            return [write(apdu)]
        elif tag == 0xC0:
            Handler.handleGetRequest(server.settings, server, GXByteBuffer(apdu[1:]), server.replyData, None)
        else:
            Handler.handleMethodRequest(
                server.settings, server, GXByteBuffer(apdu[1:]), None, server.replyData, None
            )
        answer = bytes(server.replyData.array())
        return [answer] if answer else []

    return server, exchange


def pydlms_meter(sap=CLIENT_SAP):
    """pydlms's example meter; gives it, a function that takes APDUs, and one that ends its association."""
    from pydlms.simulator import _Session, example_meter

    meter = example_meter()
    sessions = [_Session()]
    sessions[0].client_sap = sap

    def exchange(apdu):
        return meter.handle_all(apdu, sessions[0])

    def reset():
        sessions[0] = _Session()
        sessions[0].client_sap = sap

    return meter, exchange, reset
