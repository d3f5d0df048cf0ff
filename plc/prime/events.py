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
