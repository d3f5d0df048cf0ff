"""Image transfer as a client: against pydlms's server, which loses blocks, takes its time and restarts."""

from __future__ import annotations

import pytest
from firmware_rig import octets_of
from foreign_meters import CLIENT_SAP

from concentrator.collection.conversation import converse
from concentrator.dlms import image_transfer_client as image_transfer
from concentrator.dlms.client import Client, ClientSettings
from concentrator.dlms.cosem.image_transfer import ImageTransferStatus
from concentrator.dlms.errors import AccessError, DecodeError
from concentrator.errors import TransientError
from concentrator.links.errors import AnswerTimeoutError

SIZE = 1000
IMAGE = octets_of(SIZE)


class Peer:
    """pydlms's meter with an Image transfer object of its own kind."""

    def __init__(self, **knobs) -> None:
        from pydlms.simulator import ImageTransferTarget, MeterSimulator, _Session

        self.meter = MeterSimulator()
        self.target = ImageTransferTarget(**knobs).install(self.meter)
        self._session = _Session()
        self._session.client_sap = CLIENT_SAP
        self._answers = []
        self.lose = 0

    async def send(self, apdu) -> None:
        self._answers = []
        if self.lose > 0:
            self.lose -= 1
            return
        try:
            self._answers = self.meter.handle_all(apdu, self._session)
        except ConnectionResetError:
            self._answers = []

    async def receive(self, _timeout_s):
        if not self._answers:
            raise AnswerTimeoutError("no answer")
        return self._answers.pop(0)

    async def ask(self, conversation):
        return await converse(conversation, self, 1)

    async def associate(self) -> Client:
        client = Client(ClientSettings(CLIENT_SAP, 1, max_pdu_size=0xFFFF))
        await self.ask(client.associate())
        return client

    async def begin(self):
        """Associate, initiate; gives the client, block size and number of blocks."""
        client = await self.associate()
        state = await self.ask(image_transfer.read_state(client))
        await self.ask(image_transfer.initiate(client, b"fw", SIZE))
        return client, state.block_size, image_transfer.block_count(SIZE, state.block_size)

    async def transfer(self):
        """Send what is missing until nothing is."""
        client, size, blocks = await self.begin()
        while missing := await self.ask(image_transfer.read_missing(client, blocks)):
            await self.ask(image_transfer.send_blocks(client, IMAGE, size, missing))
        return client


async def test_lost_blocks_are_sent_again_and_no_others():
    peer = Peer(drop_blocks={3: 2, 9: 1})
    await peer.transfer()
    assert peer.target.image() == IMAGE
    assert sorted(peer.target.received) == list(range(16))


async def test_a_block_that_is_not_acknowledged_costs_nothing_else():
    peer = Peer()
    client, size, blocks = await peer.begin()
    sent = []
    peer.lose = 2
    assert (
        await peer.ask(image_transfer.send_blocks(client, IMAGE, size, range(blocks), sent.append))
        == blocks - 2
    )
    assert sent == list(range(2, blocks))
    assert await peer.ask(image_transfer.read_missing(client, blocks)) == [0, 1]
    peer.lose = 3
    with pytest.raises(TransientError):
        await peer.ask(image_transfer.send_blocks(client, IMAGE, size, range(blocks)))


async def test_without_a_list_of_blocks_the_first_missing_one_has_to_do():
    from pydlms.simulator import DlmsData

    peer = Peer(drop_blocks={5: 1})
    client, size, blocks = await peer.begin()
    await peer.ask(image_transfer.send_blocks(client, IMAGE, size, range(blocks)))
    peer.target.overrides[3] = DlmsData.boolean(True)
    assert await peer.ask(image_transfer.read_missing(client, blocks)) == list(range(5, blocks))


async def test_verification_and_activation_may_take_their_time_and_fail():
    slow = Peer(verify_steps=2, activate_steps=2)
    client = await slow.transfer()
    assert await slow.ask(image_transfer.verify(client)) is ImageTransferStatus.VERIFICATION_INITIATED
    assert await slow.ask(image_transfer.read_status(client)) is ImageTransferStatus.VERIFICATION_SUCCESSFUL
    (image,) = await slow.ask(image_transfer.read_images_to_activate(client))
    assert (image.size, image.identification) == (SIZE, b"fw")
    assert await slow.ask(image_transfer.activate(client)) is ImageTransferStatus.ACTIVATION_INITIATED
    assert await slow.ask(image_transfer.read_status(client)) is ImageTransferStatus.ACTIVATION_SUCCESSFUL
    bad = Peer(fail_verify=True)
    client = await bad.transfer()
    assert await bad.ask(image_transfer.verify(client)) is ImageTransferStatus.VERIFICATION_FAILED
    worse = Peer(fail_activate=True)
    client = await worse.transfer()
    assert await worse.ask(image_transfer.verify(client)) is ImageTransferStatus.VERIFICATION_SUCCESSFUL
    assert await worse.ask(image_transfer.activate(client)) is ImageTransferStatus.ACTIVATION_FAILED


async def test_a_meter_that_restarts_at_the_activation_does_not_answer():
    peer = Peer(drop_on_activate=True)
    client = await peer.transfer()
    await peer.ask(image_transfer.verify(client))
    with pytest.raises(TransientError):
        await peer.ask(image_transfer.activate(client))


async def test_what_a_meter_does_not_have_or_tells_wrongly():
    from pydlms.simulator import DlmsData, MeterSimulator

    peer = Peer()
    client = await peer.associate()
    peer.target.overrides[6] = DlmsData.enum(9)
    with pytest.raises(DecodeError, match="got 9; allowed: 0 to 7"):
        await peer.ask(image_transfer.read_state(client))
    peer.target.overrides = {2: DlmsData.uint32(0)}
    with pytest.raises(DecodeError, match="image_block_size"):
        await peer.ask(image_transfer.read_state(client))
    bare = Peer()
    bare.meter = MeterSimulator()
    client = await bare.associate()
    with pytest.raises(AccessError):
        await bare.ask(image_transfer.read_state(client))
