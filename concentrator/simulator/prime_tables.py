"""What a simulated PRIME base node tells of itself and of its nodes: information base and list attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from concentrator.simulator.prime_nodes import Base, PrimeNode
from plc.prime import enumerations, pib

# The codes of ITU-T G.9904 for what the feeder calls by name; the code rate of 1/2 is in them.
_MODULATION_CODES = {"D8PSK": 6, "DQPSK": 5, "DBPSK": 4, "robust DBPSK": 12}


def list_records(base: Base, attribute: int, by_address: Mapping[int, PrimeNode]) -> Iterator[bytes]:
    """The records of a list attribute, as they are now."""
    if attribute == pib.LIST_432_NODES:
        for address, node in sorted(by_address.items()):
            serial = node.device.identity.encode("ascii")[:16]
            yield pib.encode_record(
                attribute,
                address=address,
                serial=serial.ljust(16, b"\x00"),
                serial_length=len(serial),
                eui48=node.device.eui48,
            )
    for node in base.nodes:
        if node.registered and attribute == pib.LIST_REGISTERED_DEVICES:
            yield pib.encode_record(
                attribute,
                eui48=node.device.eui48,
                lnid=node.lnid,
                state=enumerations.STATE_SWITCH if node.switch else enumerations.STATE_TERMINAL,
                lsid=node.lsid,
                sid=node.sid,
                level=node.place.level,
                terminal_capabilities=0x1F,
                switch_capabilities=0x1F,
            )
        elif node.registered and attribute in (0x0057, 0x0059):
            now = base.now()
            yield pib.encode_record(
                attribute,
                lnid=node.lnid,
                sid=node.sid,
                tx_power=0,
                rx_level=max(0, min(15, round(base.feeder.snr_db(node.place, now) / 3.0))),
                snr=max(0, min(7, round(base.feeder.snr_db(node.place, now) / 3.0))),
                tx_modulation=_MODULATION_CODES[base.feeder.modulation(node.place, now).name],
                phy_capability=0x0F,
                rx_age=0,
            )


def information_base(eui48: bytes, security_profile: int) -> dict[int, bytes]:
    """The scalar attributes of a modem that has just started."""
    values = {row[0]: bytes(row[2]) for row in pib.ATTRIBUTES if row[2] and not row[1].startswith("action")}
    values.update(
        {
            pib.EUI48_PRODUCTION: eui48,
            pib.MAC_EUI48: eui48,
            0x0023: eui48,
            pib.MAC_STATE: b"\x00",
            pib.MAC_SECURITY_PROFILE: bytes([security_profile]),
            pib.PLC_STATE: bytes([pib.PLC_STATE_BASE]),
            0x0075: b"simulated base\x00\x00",
            0x8080: bytes.fromhex("36200304"),
            0x8126: bytes.fromhex("01040000"),
            0x8201: bytes.fromhex("01040000"),
        }
    )
    return values
