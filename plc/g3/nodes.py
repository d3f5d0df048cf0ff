"""The devices of a G3 network: EUI-64 and short address belong together for good.

A short address that was once given stays with its device, whether it is in the network or not: that is what
makes addresses survive restarts of the concentrator.
"""

FIRST_SHORT_ADDRESS = 0x0001
LAST_SHORT_ADDRESS = 0x7FFF


class Node:
    """One device that has joined at some time."""

    __slots__ = (
        "address",
        "eui64",
        "hops",
        "joined",
        "media",
        "modulation",
        "parent",
        "quality",
        "reverse_quality",
        "role",
        "route_errors",
        "searches",
        "sought",
    )

    def __init__(self, eui64: bytes, address: int) -> None:
        self.eui64 = eui64
        self.address = address
        self.joined = False
        self.parent: bytes | None = None
        self.hops: int | None = None
        self.quality: int | None = None
        self.reverse_quality: int | None = None
        self.modulation = ""
        self.media = ""
        self.role = ""
        self.route_errors = 0  # in a row
        self.sought = False  # it may well be in the network: worth a route discovery now and then
        self.searches = 0  # route discoveries so far


class NodeTable:
    """Devices by EUI-64 and by short address."""

    __slots__ = ("_by_address", "_by_eui64", "_next_address")

    def __init__(self, known: dict[bytes, int]) -> None:
        self._by_eui64: dict[bytes, Node] = {}
        self._by_address: dict[int, Node] = {}
        self._next_address = FIRST_SHORT_ADDRESS
        for eui64, address in known.items():
            self.put(eui64, address)

    def __len__(self) -> int:
        return len(self._by_eui64)

    def nodes(self) -> list[Node]:
        """All devices, in no order."""
        return list(self._by_eui64.values())

    def get(self, eui64: bytes) -> Node | None:
        """The device of an EUI-64, or None."""
        return self._by_eui64.get(eui64)

    def by_address(self, address: int) -> Node | None:
        """The device of a short address, or None."""
        return self._by_address.get(address)

    def put(self, eui64: bytes, address: int) -> Node:
        """Note a device with an address that is known to be its own."""
        node = Node(eui64, address)
        self._by_eui64[eui64] = node
        self._by_address[address] = node
        return node

    def add(self, eui64: bytes) -> Node | None:
        """Give a new device the lowest address that was never given; None when there is none."""
        while self._next_address in self._by_address:
            self._next_address += 1
        if self._next_address > LAST_SHORT_ADDRESS:
            return None
        return self.put(eui64, self._next_address)

    def remove(self, node: Node) -> None:
        """Forget a device."""
        if self._by_eui64.get(node.eui64) is node:
            self._by_eui64.pop(node.eui64)
        if self._by_address.get(node.address) is node:
            self._by_address.pop(node.address)
