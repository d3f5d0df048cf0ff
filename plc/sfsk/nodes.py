"""The servers of an S-FSK network, by system title and by MAC address.

A title and the address that was once given to it stay together, so that a server is the same one over restarts.
"""

from plc.sfsk.mac import FIRST_SERVER, LARGEST_CREDIT, LAST_SERVER


class Node:
    """One server that was registered at some time."""

    __slots__ = (
        "address", "hops", "initial_credit", "joined", "searches", "spoken_to_at", "suspect", "title", "unanswered",
    )  # fmt: skip

    def __init__(self, title: bytes, address: int) -> None:
        self.title = title
        self.address = address
        self.joined = False
        self.hops: int | None = None  # repetitions that a frame between it and us needs
        self.initial_credit = LARGEST_CREDIT
        self.unanswered = 0  # frames to it in a row that nothing came back for
        self.suspect = True  # worth a Ping
        self.spoken_to_at = 0.0
        self.searches = 0  # pings of one that has left, to see whether it is back


class NodeTable:
    """Servers by system title and by MAC address."""

    __slots__ = ("_by_address", "_by_title", "_next_address")

    def __init__(self, known: "dict[bytes, int]") -> None:
        self._by_title: "dict[bytes, Node]" = {}
        self._by_address: "dict[int, Node]" = {}
        self._next_address = FIRST_SERVER
        for title, address in known.items():
            self.put(title, address)

    def __len__(self) -> int:
        return len(self._by_title)

    def nodes(self) -> "list[Node]":
        """All servers, in no order."""
        return list(self._by_title.values())

    def get(self, title: bytes) -> Node | None:
        """The server of a system title, or None."""
        return self._by_title.get(title)

    def by_address(self, address: int) -> Node | None:
        """The server of a MAC address, or None."""
        return self._by_address.get(address)

    def put(self, title: bytes, address: int) -> Node:
        """Note a server with the address that is its own."""
        node = Node(title, address)
        self._by_title[title] = node
        self._by_address[address] = node
        return node

    def add(self, title: bytes) -> Node | None:
        """Give a new server the lowest address that was never given; None when there is none."""
        while self._next_address in self._by_address:
            self._next_address += 1
        if self._next_address > LAST_SERVER:
            return None
        return self.put(title, self._next_address)

    def largest_address(self) -> int:
        """The highest address that was given."""
        return max(list(self._by_address) or [0])
