"""The one face of a PLC network, whatever its family.

PRIME base node and G3 coordinator are both driven as objects with the methods below, and yield the
events below, so that collection never asks which family it runs on. Differences that matter are
stated as capabilities.

Sans-IO: bytes from the modem go in by receive_data(), bytes for it come out of data_to_send(); time
is an argument (seconds, float, monotonic). The shell around it does this, and nothing else:

    network.start(now)
    loop: write data_to_send(); drain next_event(); wait for bytes or until next_timeout();
          then receive_data(data, now) or handle_timeout(now)
"""


class Capabilities:
    """What a network can do, as plain data."""

    __slots__ = ("broadcast", "family", "largest_apdu", "operations", "requests_in_flight")

    def __init__(
        self,
        family: str,
        largest_apdu: int,
        requests_in_flight: int,
        broadcast: bool,
        operations: tuple[str, ...] = (),
    ) -> None:
        self.family = family  # "prime", "g3" or "s-fsk"
        self.largest_apdu = largest_apdu  # octets of one APDU that the convergence layer takes
        self.requests_in_flight = requests_in_flight  # send_apdu() calls unconfirmed by the modem at a time
        self.broadcast = broadcast
        # What can be done beside the methods of Network: "device_keys", "group_key_rotation", "node_upgrade",
        # "multicast", "promotion", "repeater_call", "clear_alarm".
        self.operations = operations


class Event:
    """Something that happened on the network; subclasses name it in the past tense."""

    __slots__ = ()

    def __repr__(self) -> str:
        values: list[str] = []
        for name in self.__slots__:
            value = getattr(self, name)
            values.append(
                name + "=" + (value.hex() if isinstance(value, (bytes, bytearray)) else repr(value))
            )
        return type(self).__name__ + "(" + ", ".join(values) + ")"


class NetworkStarted(Event):
    """The modem answered, is configured, and the network runs. Sent again after each recovery."""

    __slots__ = ("description", "identity")

    def __init__(self, identity: bytes, description: str) -> None:
        self.identity = identity  # EUI-48 or EUI-64 of the base node or coordinator
        self.description = description  # family, versions, band: for people


class NodeJoined(Event):
    """A node can be reached with APDUs from now on. Repeated for all of them after a re-list."""

    __slots__ = ("address", "eui", "identity")

    def __init__(self, eui: bytes, address: int, identity: str) -> None:
        self.eui = eui  # EUI-48 (PRIME) or EUI-64 (G3): the permanent identity
        self.address = address  # 4-32 address or short address: valid until the node leaves
        self.identity = identity  # serial text that the node told (PRIME 4-32), or ""


class NodeLeft(Event):
    """A node can no longer be reached."""

    __slots__ = ("address", "eui", "reason")

    def __init__(self, eui: bytes, address: int, reason: str) -> None:
        self.eui = eui
        self.address = address
        self.reason = reason


class ShortAddressAssigned(Event):
    """G3: a device was given a short address that must stay its own; keep it over restarts.

    The mapping is handed to the coordinator's constructor as `known_addresses`.
    """

    __slots__ = ("address", "eui")

    def __init__(self, eui: bytes, address: int) -> None:
        self.eui = eui
        self.address = address


class NodeDeclined(Event):
    """A device wanted to join and may not: a foreign one, as a rule. Told once for each."""

    __slots__ = ("eui", "reason")

    def __init__(self, eui: bytes, reason: str) -> None:
        self.eui = eui
        self.reason = reason


class FrameCounterAdvanced(Event):
    """G3 with the bootstrap server on the host: keep this count over restarts.

    It is handed to the coordinator's constructor as `frame_counter`; members refuse a modem that counts from less.
    """

    __slots__ = ("counter",)

    def __init__(self, counter: int) -> None:
        self.counter = counter


class GroupKeyChanged(Event):
    """G3 with the bootstrap server on the host: a rotation of the GMK has ended.

    The new key and this index are what the coordinator's constructor takes from now on.
    """

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index


class ApduReceived(Event):
    """An APDU came from a node: an answer or a notification."""

    __slots__ = ("address", "apdu", "destination_sap", "source_sap")

    def __init__(self, address: int, source_sap: int, destination_sap: int, apdu: bytes) -> None:
        self.address = address
        self.source_sap = source_sap  # the node's logical device
        self.destination_sap = destination_sap  # our client SAP
        self.apdu = apdu


class ApduSent(Event):
    """The modem took the APDU and delivered it to the next hop; that is not the meter's answer."""

    __slots__ = ("token",)

    def __init__(self, token: int) -> None:
        self.token = token


class ApduNotSent(Event):
    """The APDU did not leave, or the modem gave up on it."""

    __slots__ = ("reason", "token", "transient")

    def __init__(self, token: int, reason: str, transient: bool) -> None:
        self.token = token
        self.reason = reason
        self.transient = transient  # worth trying again soon


class LinkQualityReported(Event):
    """What is known of the way to a node changed. Fields that a family cannot tell are None."""

    __slots__ = (
        "address", "eui", "hops", "level", "media", "modulation", "parent", "quality", "reverse_quality", "role",
    )  # fmt: skip

    def __init__(
        self,
        eui: bytes,
        address: int,
        parent: bytes | None = None,
        level: int | None = None,
        hops: int | None = None,
        quality: int | None = None,
        role: str = "",
        reverse_quality: int | None = None,
        modulation: str = "",
        media: str = "",
    ) -> None:
        self.eui = eui
        self.address = address
        self.parent = parent  # EUI of the node it hangs under; None at the root or when not known
        self.level = level  # PRIME hierarchy level, 0 = directly under the base node
        self.hops = hops  # G3: hop count of the route
        self.quality = quality  # G3: LQI 0..255; PRIME: SNR code
        self.role = role  # "terminal", "switch", "router", or "" when not known
        self.reverse_quality = reverse_quality  # as the other side hears us, where it is told
        self.modulation = modulation  # of the direct link, "" when not known
        self.media = media  # "plc" or "rf", "" when not known


class TopologyChanged(Event):
    """Registrations, switches or routes changed: `description` says how, in words for the log."""

    __slots__ = ("description", "eui")

    def __init__(self, eui: bytes, description: str) -> None:
        self.eui = eui
        self.description = description


class DiagnosticsRead(Event):
    """read_diagnostics() is through: `counters` of the network object are new, and these are the modem's tables."""

    __slots__ = ("tables",)

    def __init__(self, tables: "list[tuple[str, list[dict[str, int | bytes]]]]") -> None:
        self.tables = tables  # (name of the table, its records)


class NodeDiagnosticsRead(Event):
    """What read_node_diagnostics() has found out, as names and texts; `reason` says why it is not whole, or ""."""

    __slots__ = ("eui", "reason", "values")

    def __init__(self, eui: bytes, values: "list[tuple[str, str]]", reason: str = "") -> None:
        self.eui = eui
        self.values = values
        self.reason = reason


class ModemLost(Event):
    """The modem does not answer, restarted, or speaks another protocol. The network recovers by itself."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason


class Network:
    """The methods that every family implements; `counters` maps the name of each counter to its value."""

    capabilities: Capabilities
    counters: dict[str, int]

    def start(self, now: float) -> None:
        """Begin (or begin anew, after the port was reopened): reset, identify, list, follow."""
        raise NotImplementedError

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes from the modem, in any chunking."""
        raise NotImplementedError

    def data_to_send(self) -> bytes:
        """Give the bytes that are to be written to the modem now; b"" when there are none."""
        raise NotImplementedError

    def next_event(self) -> Event | None:
        """Give the oldest event that was not yet taken, or None."""
        raise NotImplementedError

    def next_timeout(self) -> float | None:
        """Tell when handle_timeout() wants to be called (monotonic seconds), or None."""
        raise NotImplementedError

    def handle_timeout(self, now: float) -> None:
        """Act on every timer that has run out at `now`; next_timeout() is later than `now` after this."""
        raise NotImplementedError

    def send_apdu(
        self,
        address: int,
        source_sap: int,
        destination_sap: int,
        apdu: bytes,
        now: float,
        urgent: bool = False,
    ) -> int:
        """Queue an APDU for a node; returns the token that ApduSent or ApduNotSent will carry.

        An urgent one goes before all that only wait for their turn.
        Raises LocalPlcError when the APDU is longer than capabilities.largest_apdu or the address is unknown.
        """
        raise NotImplementedError

    def expel(self, eui: bytes, now: float) -> None:
        """Make a node leave the network."""
        raise NotImplementedError

    def refresh(self, now: float) -> None:
        """List all nodes and links anew; yields NodeJoined, NodeLeft and LinkQualityReported."""
        raise NotImplementedError

    def read_diagnostics(self, now: float) -> None:
        """Read versions and counters of the modem into `counters`, and its tables: DiagnosticsRead brings them."""
        raise NotImplementedError

    def read_node_diagnostics(self, eui: bytes, now: float) -> None:
        """Find out what can be known of a node and the way to it; NodeDiagnosticsRead brings it.

        Raises LocalPlcError when it is not known.
        """
        raise NotImplementedError

    def set_allowed(self, allowed: "set[bytes] | None", now: float) -> None:
        """Replace the EUIs that may join; None lets all. Nodes that have joined stay."""
        raise NotImplementedError
