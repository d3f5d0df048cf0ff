"""What only a PRIME network tells, beside the events of plc/network.py."""

from plc.network import Event


class NodeAttributesRead(Event):
    """A node answered query_node(), or did not: then `reason` says why and `attributes` is empty."""

    __slots__ = ("attributes", "eui", "reason")

    def __init__(self, eui: bytes, attributes: "list[tuple[int, int, bytes]]", reason: str = "") -> None:
        self.eui = eui
        self.attributes = attributes  # (attribute, index, value)
        self.reason = reason


class NodeListRead(Event):
    """A node answered query_node_list(): `records` as plc/prime/pib.py names their fields."""

    __slots__ = ("attribute", "eui", "reason", "records")

    def __init__(
        self, eui: bytes, attribute: int, records: "list[dict[str, int | bytes]]", reason: str = ""
    ) -> None:
        self.eui = eui
        self.attribute = attribute
        self.records = records
        self.reason = reason  # why it is not whole, or ""


class FirmwareUpgradeStarted(Event):
    """The modem has the whole file, its check sequence was right, and it sends pages to the nodes now."""

    __slots__ = ("targets",)

    def __init__(self, targets: int) -> None:
        self.targets = targets


class FirmwareUpgradeProgressed(Event):
    """A node has `pages` pages, or changed its state (plc.prime.enumerations.FU_STATES, in words)."""

    __slots__ = ("eui", "pages", "state")

    def __init__(self, eui: bytes, state: str, pages: int) -> None:
        self.eui = eui
        self.state = state
        self.pages = pages


class FirmwareUpgradeFinished(Event):
    """The upgrade is over. `outcomes` maps the EUI-48 of each target to an outcome in words."""

    __slots__ = ("outcomes", "reason")

    def __init__(self, outcomes: "dict[bytes, str]", reason: str) -> None:
        self.outcomes = outcomes
        self.reason = reason  # why it ended early, or ""


class NodeCommandDone(Event):
    """A command to one node was taken by the modem (`reason` is ""), or not. `command` names it."""

    __slots__ = ("command", "eui", "reason")

    def __init__(self, eui: bytes, command: str, reason: str = "") -> None:
        self.eui = eui
        self.command = command
        self.reason = reason


class ZeroCrossRead(Event):
    """How far a node's zero crossing lies from the base node's: times as the modem counts them."""

    __slots__ = ("difference_time", "eui", "frequency_time", "reason")

    def __init__(self, eui: bytes, frequency_time: int, difference_time: int, reason: str = "") -> None:
        self.eui = eui
        self.frequency_time = frequency_time
        self.difference_time = difference_time
        self.reason = reason


class AttributesRead(Event):
    """Attributes of the modem itself: (attribute, value), the value empty when it was refused."""

    __slots__ = ("attributes",)

    def __init__(self, attributes: "list[tuple[int, bytes]]") -> None:
        self.attributes = attributes


class AttributeWritten(Event):
    """An attribute of the modem was written (`reason` is ""), or not."""

    __slots__ = ("attribute", "reason")

    def __init__(self, attribute: int, reason: str = "") -> None:
        self.attribute = attribute
        self.reason = reason


class MulticastMemberJoined(Event):
    """A node is in a multicast group now; `reason` says why it is not, or is ""."""

    __slots__ = ("eui", "handle", "reason")

    def __init__(self, handle: int, eui: bytes, reason: str = "") -> None:
        self.handle = handle
        self.eui = eui
        self.reason = reason


class MulticastMemberLeft(Event):
    """A node is not in a multicast group any more; the EUI-48 is all ones when the whole group has ended."""

    __slots__ = ("eui", "handle")

    def __init__(self, handle: int, eui: bytes) -> None:
        self.handle = handle
        self.eui = eui


class MulticastSent(Event):
    """Data went to a multicast group (`reason` is ""), or not. Nobody acknowledges a multicast."""

    __slots__ = ("handle", "reason")

    def __init__(self, handle: int, reason: str = "") -> None:
        self.handle = handle
        self.reason = reason
