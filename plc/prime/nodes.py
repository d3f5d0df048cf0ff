"""The nodes that a PRIME base node knows: by EUI-48, since all other addresses change.

A node hangs under the switch whose LSID is its SID; SID 0 is the base node itself. SID, LNID and LSID are
given anew on each registration.
"""

BASE_NODE_SID = 0


class Node:
    """One service node. `address` is None while it has no open 4-32 connection."""

    __slots__ = (
        "address",
        "alive_time",
        "changed",
        "connection_changed",
        "eui48",
        "identity",
        "level",
        "lnid",
        "lsid",
        "modulation",
        "quality",
        "role",
        "sid",
    )

    def __init__(self, eui48: bytes) -> None:
        self.eui48 = eui48
        self.address: int | None = None
        self.identity = ""
        self.sid: int | None = None
        self.lnid: int | None = None
        self.lsid: int | None = None
        self.level: int | None = None
        self.alive_time: int | None = None  # exponent code of its alive time
        self.quality: int | None = None  # SNR code
        self.modulation = ""
        self.role = ""  # "terminal", "switch", or "" when not known
        self.changed = 0  # count of the last indication about it
        self.connection_changed = 0  # count of the last one that opened or closed its 4-32 connection


class NodeTable:
    """Nodes by EUI-48, and by the 4-32 address of those that are connected."""

    __slots__ = ("_by_address", "_by_eui48", "largest")

    def __init__(self, largest: int) -> None:
        self._by_eui48: dict[bytes, Node] = {}
        self._by_address: dict[int, Node] = {}
        self.largest = largest

    def __len__(self) -> int:
        return len(self._by_eui48)

    def nodes(self) -> list[Node]:
        """All nodes, in no order."""
        return list(self._by_eui48.values())

    def connected(self) -> list[Node]:
        """The nodes with an open 4-32 connection."""
        return list(self._by_address.values())

    def get(self, eui48: bytes) -> Node | None:
        """The node of an EUI-48, or None."""
        return self._by_eui48.get(eui48)

    def by_address(self, address: int) -> Node | None:
        """The connected node of a 4-32 address, or None."""
        return self._by_address.get(address)

    def add(self, eui48: bytes) -> Node | None:
        """The node of an EUI-48, made when it is new; None when the table is full."""
        node = self._by_eui48.get(eui48)
        if node is None and len(self._by_eui48) < self.largest:
            node = Node(eui48)
            self._by_eui48[eui48] = node
        return node

    def remove(self, node: Node) -> None:
        """Forget a node."""
        self.disconnect(node)
        self._by_eui48.pop(node.eui48, None)

    def connect(self, node: Node, address: int) -> None:
        """Note the 4-32 address of a node."""
        self.disconnect(node)
        node.address = address
        self._by_address[address] = node

    def disconnect(self, node: Node) -> None:
        """Note that the 4-32 connection of a node is closed."""
        if node.address is not None and self._by_address.get(node.address) is node:
            self._by_address.pop(node.address)
        node.address = None

    def switches(self) -> dict[int, Node]:
        """The switches by their LSID."""
        found: dict[int, Node] = {}
        for node in self._by_eui48.values():
            if node.role == "switch" and node.lsid is not None:
                found[node.lsid] = node
        return found


def parent_of(node: Node, switches: dict[int, Node]) -> Node | None:
    """The switch that a node hangs under; None for the base node or when it is not known."""
    if node.sid is None or node.sid == BASE_NODE_SID:
        return None
    return switches.get(node.sid)
