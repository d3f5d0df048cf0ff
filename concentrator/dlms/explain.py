"""Any DLMS octets turned into a nested dict that a person or a program can read.

Recognises WRAPPER and HDLC frames (also several, with segments and block transfers put together), a bare LLC
header, and bare APDUs; takes protection off where keys are given. What cannot be decoded is told in
`error` beside what could. The dicts hold numbers, texts, lists and dicts only: ready for JSON.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from concentrator.dlms import apdu as apdus
from concentrator.dlms import axdr, hdlc
from concentrator.dlms.acse import AssociationRequest, AssociationResponse
from concentrator.dlms.apdu.action import (
    ActionRequestWithFirstPblock,
    ActionRequestWithPblock,
    ActionResponseWithPblock,
)
from concentrator.dlms.apdu.get import GetResponseNormal, GetResponseWithBlock, read_get_results
from concentrator.dlms.apdu.initiate import ConfirmedServiceError, InitiateRequest, InitiateResponse
from concentrator.dlms.apdu.notification import DataNotification, EventNotification, ExceptionResponse
from concentrator.dlms.apdu.protection import (
    GENERAL_DED,
    GENERAL_GLO,
    SERVICE_OF_DEDICATED,
    SERVICE_OF_GLOBAL,
    GatewayApdu,
    GeneralBlockTransfer,
    GeneralCiphered,
    GeneralCiphering,
    ServiceCiphered,
)
from concentrator.dlms.apdu.set import SetRequestWithDatablock, SetRequestWithFirstDatablock
from concentrator.dlms.attributes import AttributeDescriptor, MethodDescriptor, Selection
from concentrator.dlms.axdr import CompactArray, Data, DataType
from concentrator.dlms.codes import Conformance, ServiceError, StateError, named, words
from concentrator.dlms.cosem.classes import interface_class
from concentrator.dlms.cosem_time import CosemDateTime
from concentrator.dlms.errors import DecodeError, DlmsError, SecurityError
from concentrator.dlms.gbt import BlockTransfer
from concentrator.dlms.reader import Reader
from concentrator.dlms.security import SecurityKeys, unprotect
from concentrator.dlms.wrapper import WrapperDecoder
from concentrator.obis import Obis

Explained: TypeAlias = "dict[str, Explained] | list[Explained] | str | int | float | bool | None"
Tree: TypeAlias = "dict[str, Explained]"

_HEADER_OCTETS = 5
_AUTHENTICATED = 0x10
_DATA_NOTIFICATION = 0x0F
_WITH_INVOKE = frozenset((0xC0, 0xC1, 0xC3, 0xC4, 0xC5, 0xC7))
# By their tags: what may be a long value, of which a part is of use too.
_APDUS_WITH_DATA = frozenset((0x0F, 0xC1, 0xC2, 0xC3, 0xC4, 0xC7, 0xD9, 0xDA, 0x0C, 0x18))
_SHORTEST_TEXT = 3
_VALUES_AT_ONCE = 64
_LONGEST_VALUE = 1 << 20
_HDLC_FORMAT_TYPE_3 = 0xA0


_ServiceBlock: TypeAlias = (
    GetResponseWithBlock
    | SetRequestWithFirstDatablock
    | SetRequestWithDatablock
    | ActionRequestWithFirstPblock
    | ActionRequestWithPblock
    | ActionResponseWithPblock
)


@dataclass(slots=True)
class Explainer:
    """Explains frames one after the other; block transfers and segments carry over from one to the next.

    `system_title` is the originator's, for envelopes that do not tell it.
    """

    keys: SecurityKeys | None = None
    system_title: bytes = b""
    _blocks: BlockTransfer = field(default_factory=BlockTransfer, init=False)
    _segments: hdlc.Reassembler = field(default_factory=hdlc.Reassembler, init=False)
    _last_block: int = field(default=0, init=False)
    # Values that come in the blocks of a service, by tag and invoke-id: the last block's number, and the octets.
    _values: dict[tuple[int, int], tuple[int, bytes]] = field(
        default_factory=dict["tuple[int, int]", "tuple[int, bytes]"], init=False
    )

    def explain(self, octets: bytes) -> Tree:
        """The tree of a frame, of several, or of an APDU. Never raises on bad octets: see its `error`."""
        if not octets:
            return {"error": "no octets"}
        if octets[0] == hdlc.FLAG:
            return self._hdlc(octets)
        if octets[:2] == b"\x00\x01" and len(octets) > 8:
            return self._wrapper(octets)
        if octets[:3] in (hdlc.LLC_COMMAND, hdlc.LLC_RESPONSE):
            return {"frame": "llc", "llc": octets[:3].hex(), **self.apdu(octets[3:])}
        return self.apdu(octets)

    def _wrapper(self, octets: bytes) -> Tree:
        decoder = WrapperDecoder()
        decoder.receive_data(octets)
        found: list[Tree] = []
        try:
            while frame := decoder.next_event():
                found.append(
                    {
                        "frame": "wrapper",
                        "version": 1,
                        "source_wport": frame.source,
                        "destination_wport": frame.destination,
                        "length": len(frame.apdu),
                        **self.apdu(frame.apdu),
                    }
                )
        except DecodeError as error:
            found.append({"frame": "wrapper", "error": str(error), "trailing": decoder.pending.hex()})
            return _one_or_many(found)
        if not found:
            source, destination, length = (int.from_bytes(octets[i : i + 2], "big") for i in (2, 4, 6))
            return {
                "frame": "wrapper",
                "version": 1,
                "source_wport": source,
                "destination_wport": destination,
                "length": length,
                **self.apdu(octets[8:]),
                "error": f"truncated: {length} octets announced, {len(octets) - 8} here",
            }
        tree = _one_or_many(found)
        rest = decoder.pending
        if rest:
            tree["trailing"] = rest.hex()
        if rest[:2] == b"\x00\x01":
            tree["error"] = f"truncated: {len(rest)} octets of a frame follow that is cut off"
        return tree

    def _hdlc(self, octets: bytes) -> Tree:
        decoder = hdlc.HdlcDecoder()
        decoder.receive_data(octets)
        found: list[Tree] = []
        while frame := decoder.next_event():
            tree = _hdlc_header(frame)
            tree |= {"length": len(frame.to_bytes()) - 2, "fcs_ok": True}
            if frame.type in (hdlc.FrameType.I, hdlc.FrameType.UI):
                whole = self._segments.receive_frame(frame)
                tree.update(self._information(frame.information, whole))
            elif frame.information:
                tree["information"] = frame.information.hex()
            found.append(tree)
        if not found:
            return self._damaged_hdlc(octets, decoder.last_error)
        tree = _one_or_many(found)
        if decoder.bad_frames:
            tree["error"] = f"{decoder.bad_frames} bad frames: {decoder.last_error}"
        elif decoder.pending > 1:
            rest = octets[-decoder.pending :]
            if rest[1] & 0xF0 == _HDLC_FORMAT_TYPE_3:
                tree["error"] = f"truncated: {len(rest)} octets of a frame follow that is cut off"
            tree["trailing"] = rest.hex()
        return tree

    def _damaged_hdlc(self, octets: bytes, reason: str) -> Tree:
        """What a frame may have been that is cut off or fails its check."""
        error = reason or "truncated: no whole frame"
        try:
            frame = hdlc.decode_damaged(octets)
        except DecodeError:
            return {"frame": "hdlc", "error": error}
        tree = _hdlc_header(frame)
        if reason:
            tree["fcs_ok"] = False
        if frame.information:
            tree.update(self._information(frame.information, hdlc.Reassembler().receive_frame(frame)))
        return {**tree, "error": error}

    def _information(self, information: bytes, whole: bytes | None) -> Tree:
        """What an information field brings: a whole APDU, a part of one, or octets that need not be any."""
        tree: Tree = {"information": information.hex()}
        if not whole:
            return tree
        decoded = self.apdu(whole)
        has_llc = information[:3] in (hdlc.LLC_COMMAND, hdlc.LLC_RESPONSE)
        return decoded if has_llc or "error" not in decoded else tree

    def apdu(self, octets: bytes) -> Tree:
        """The tree of one APDU."""
        name = apdus.name_of(octets[0]) if octets else "nothing"
        try:
            decoded, end = apdus.decode_from(octets)
        except DecodeError as error:
            return {"apdu": name, **_before_damage(octets, error), "error": str(error)}
        tree: Tree = {"apdu": name}
        try:
            tree.update(self._fields(decoded))
        except DlmsError as error:
            tree["error"] = str(error)
        if end != len(octets):
            tree["trailing"] = octets[end:].hex()
        return tree

    def _fields(self, decoded: apdus.Apdu) -> Tree:
        special = _SPECIAL.get(type(decoded))
        if special is not None:
            return special(self, decoded)
        return {item.name: _plain(getattr(decoded, item.name)) for item in dataclasses.fields(decoded)}

    def data_notification(self, decoded: DataNotification) -> Tree:
        """A push: its header, and the body by types."""
        return {
            "long_invoke_id": f"{decoded.long_invoke:08x}",
            "date_time": None if decoded.date_time is None else decoded.date_time.hex(),
            **({} if decoded.date_time is None else {"time": explain_time(decoded.date_time)}),
            "body": explain_data(decoded.body),
        }

    def ciphered(self, decoded: ServiceCiphered | GeneralCiphered | GeneralCiphering) -> Tree:
        """An envelope: its security header, and what is within where keys are known."""
        content = decoded.content
        tree: Tree = {}
        header = b""
        title = self.system_title
        if isinstance(decoded, GeneralCiphered):
            tree["system_title"] = decoded.system_title.hex()
            title = decoded.system_title or title
        elif isinstance(decoded, GeneralCiphering):
            header = decoded.header
            title = decoded.originator_system_title or title
            for item in dataclasses.fields(decoded)[:5]:
                tree[item.name] = getattr(decoded, item.name).hex()
            if decoded.key_info:
                tree["key_info"] = _plain(decoded.key_info)
        tree["length"] = len(content)
        if len(content) < _HEADER_OCTETS:
            raise SecurityError(f"a ciphered APDU has a security header of 5 octets, got {len(content)}")
        tree["security_control"] = f"{content[0]:02x}"
        tree["invocation_counter"] = int.from_bytes(content[1:5], "big")
        if self.keys is None:
            tree["ciphertext"] = content[_HEADER_OCTETS:].hex()
            return tree
        try:
            plain = unprotect(self.keys.encryption, self.keys.authentication, title, content, header)
        except DlmsError as error:
            tree["error"] = str(error)
            return tree
        tree["plain_apdu"] = plain.hex()
        inner = self.apdu(plain)
        # Without a tag a wrong key shows in what it gives only: mostly nonsense, or an APDU that ends too early.
        untagged = not content[0] & _AUTHENTICATED
        if "error" in inner or (untagged and "trailing" in inner):
            tree["error"] = "what the key gives is no APDU: wrong key?"
        tree["decoded"] = inner
        return tree

    def block_transfer(self, decoded: GeneralBlockTransfer) -> Tree:
        """One block, and the APDU that it completes."""
        tree: Tree = {item.name: _plain(getattr(decoded, item.name)) for item in dataclasses.fields(decoded)}
        _, whole = self._blocks.receive_block(decoded)
        tree |= _lack(self._last_block, decoded.block_number)
        self._last_block = decoded.block_number
        if whole is not None:
            self._last_block = 0
            tree["decoded"] = self.apdu(whole)
        return tree

    def service_block(self, decoded: _ServiceBlock) -> Tree:
        """One block of GET, SET or ACTION, and the value that it completes."""
        tree: Tree = {item.name: _plain(getattr(decoded, item.name)) for item in dataclasses.fields(decoded)}
        octets = decoded.result if isinstance(decoded, GetResponseWithBlock) else decoded.block
        if not isinstance(octets, bytes):
            return tree
        key = decoded.TAG, decoded.invoke & 0x0F
        number, parts = self._values.get(key, (0, b""))
        if decoded.block_number == 1:
            number, parts = 0, b""
        tree |= _lack(number, decoded.block_number)
        self._values[key] = decoded.block_number, parts + octets
        if len(self._values) > _VALUES_AT_ONCE or len(parts) > _LONGEST_VALUE:
            self._values.clear()
        if decoded.last and decoded.block_number == number + 1:
            tree["decoded"] = _value_or_list(parts + octets)
            self._values.pop(key, None)
        return tree

    def gateway(self, decoded: GatewayApdu) -> Tree:
        """A gateway's header, and the APDU within."""
        return {
            "network_id": decoded.network_id,
            "device_address": _octets(decoded.device_address),
            "decoded": self.apdu(decoded.content),
        }

    def association(self, decoded: AssociationRequest | AssociationResponse) -> Tree:
        """An AARQ or AARE, with what its user-information proposes or grants."""
        tree: Tree = {
            item.name: _plain(getattr(decoded, item.name))
            for item in dataclasses.fields(decoded)
            if getattr(decoded, item.name) is not None and item.name != "user_information"
        }
        if isinstance(decoded, AssociationRequest) and decoded.mechanism == 1:
            tree["authentication_value"] = "hidden"
        if decoded.user_information:
            tree["user_information"] = self.apdu(decoded.user_information)
        return tree


def _hdlc_header(frame: hdlc.HdlcFrame) -> Tree:
    return {
        "frame": "hdlc",
        "type": frame.type.name,
        "destination": frame.destination.to_bytes().hex(),
        "source": frame.source.to_bytes().hex(),
        "control": f"{frame.control:02x}",
        "segmented": frame.segmented,
    }


def _before_damage(octets: bytes, error: DecodeError) -> Tree:
    """What an APDU brought before it went wrong: the part of a value, or the header of an envelope."""
    if error.offset is None:
        return {}
    tag, at = octets[0], error.offset
    if tag in (*SERVICE_OF_GLOBAL, *SERVICE_OF_DEDICATED, GENERAL_GLO, GENERAL_DED):
        header: Tree = {}
        if tag in (GENERAL_GLO, GENERAL_DED) and octets[1:2] == b"\x08":
            header["system_title"] = octets[2:10].hex()
        if len(octets) >= at + _HEADER_OCTETS:
            header["security_control"] = f"{octets[at]:02x}"
            header["invocation_counter"] = int.from_bytes(octets[at + 1 : at + 5], "big")
        return header
    tree: Tree = {}
    if tag == _DATA_NOTIFICATION and len(octets) >= _HEADER_OCTETS:
        tree["long_invoke_id"] = octets[1:5].hex()
    elif tag in _WITH_INVOKE and len(octets) > 2:
        tree["invoke"] = octets[2]
    if tag in _APDUS_WITH_DATA and (part := _part(octets, at)) is not None:
        tree["before_the_error"] = part
    return tree


def _part(octets: bytes, offset: int, depth: int = 0) -> Explained:
    """The value at `offset` as far as it can be decoded; what is missing is not in the tree."""
    try:
        return explain_data(axdr.decode_from(octets, offset)[0])
    except DecodeError:
        pass
    inner = offset < len(octets) and octets[offset] in (DataType.ARRAY, DataType.STRUCTURE)
    if not inner or depth == axdr.MAX_DEPTH:
        return None
    reader = Reader(octets, offset + 1)
    items: list[Explained] = []
    try:
        count = reader.length()
        while len(items) < count:
            items.append(explain_data(axdr.read(reader)))
    except DecodeError:
        last = _part(octets, reader.offset, depth + 1)
        items += [] if last is None else [last]
    return {DataType(octets[offset]).label: items}


def _initiate(_: Explainer, decoded: InitiateRequest | InitiateResponse) -> Tree:
    tree: Tree = {
        "dlms_version": decoded.dlms_version,
        "conformance": _conformance(decoded.conformance),
        "max_receive_pdu_size": decoded.max_receive_pdu_size,
    }
    if isinstance(decoded, InitiateResponse):
        tree["vaa_name"] = f"{decoded.vaa_name:04x}"
    else:
        tree["dedicated_key"] = decoded.dedicated_key is not None
    return tree


def _get_response(_: Explainer, decoded: GetResponseNormal) -> Tree:
    if isinstance(decoded.result, bytes):
        return {"invoke": decoded.invoke, "value": explain_data(decoded.data())}
    return {"invoke": decoded.invoke, "result": words(decoded.result)}


def _exception(_: Explainer, decoded: ExceptionResponse) -> Tree:
    tree: Tree = {
        "state": words(named(StateError, decoded.state)),
        "service": words(named(ServiceError, decoded.service)),
    }
    if decoded.expected_counter is not None:
        tree["expected_counter"] = decoded.expected_counter
    return tree


def _service_error(_: Explainer, decoded: ConfirmedServiceError) -> Tree:
    return {"service": decoded.service, "reason": decoded.words}


def _event(_: Explainer, decoded: EventNotification) -> Tree:
    return {
        "time": None if decoded.date_time is None else explain_time(decoded.date_time),
        "attribute": _attribute(decoded.attribute),
        "value": explain_data(decoded.value),
    }


# Each explains the type it stands by; the value type is the union, as a dict cannot tell pairs apart.
def _lack(before: int, number: int) -> Tree:
    """What is to be said of block `number` after block `before`; 0 where none was seen."""
    if number <= before + 1:
        return {}
    if before == 0:
        return {"note": "the blocks before this one were not seen"}
    return {"error": f"block {before + 1} is missing before this one"}


def _value_or_list(octets: bytes) -> Explained:
    """What came in blocks: one value, or the results of a list."""
    try:
        return explain_data(axdr.decode(octets))
    except DecodeError as error:
        reader = Reader(octets)
        try:
            results = read_get_results(reader)
            reader.finish("the list")
        except DecodeError:
            return {"error": f"what came in blocks is no value: {error}"}
        return list(_items(results))


_SPECIAL: dict[type, Callable[[Explainer, object], Tree]] = {
    DataNotification: Explainer.data_notification,
    ServiceCiphered: Explainer.ciphered,
    GeneralCiphered: Explainer.ciphered,
    GeneralCiphering: Explainer.ciphered,
    GeneralBlockTransfer: Explainer.block_transfer,
    GetResponseWithBlock: Explainer.service_block,
    SetRequestWithFirstDatablock: Explainer.service_block,
    SetRequestWithDatablock: Explainer.service_block,
    ActionRequestWithFirstPblock: Explainer.service_block,
    ActionRequestWithPblock: Explainer.service_block,
    ActionResponseWithPblock: Explainer.service_block,
    GatewayApdu: Explainer.gateway,
    AssociationRequest: Explainer.association,
    AssociationResponse: Explainer.association,
    InitiateRequest: _initiate,
    InitiateResponse: _initiate,
    GetResponseNormal: _get_response,
    ExceptionResponse: _exception,
    ConfirmedServiceError: _service_error,
    EventNotification: _event,
}  # type: ignore[dict-item]


def _one_or_many(found: list[Tree]) -> Tree:
    return found[0] if len(found) == 1 else {"frames": list[Explained](found)}


def _conformance(conformance: Conformance) -> list[Explained]:
    return [str(bit.name).lower().replace("_", "-") for bit in Conformance if bit and bit in conformance]


def _attribute(descriptor: AttributeDescriptor) -> Tree:
    row = interface_class(descriptor.class_id)
    return {
        "class_id": descriptor.class_id,
        "class": row.name,
        "obis": descriptor.obis.dotted,
        "meaning": descriptor.obis.describe(),
        "attribute": descriptor.attribute,
        "name": row.attribute_name(descriptor.attribute),
    }


def _method(descriptor: MethodDescriptor) -> Tree:
    row = interface_class(descriptor.class_id)
    return {
        "class_id": descriptor.class_id,
        "class": row.name,
        "obis": descriptor.obis.dotted,
        "meaning": descriptor.obis.describe(),
        "method": descriptor.method,
        "name": row.method_name(descriptor.method),
    }


def explain_time(octets: bytes) -> str:
    """A date-time, date or time as text, with `*` for open fields; hex where it is none."""
    try:
        return str(CosemDateTime.from_bytes(octets))
    except DecodeError:
        return octets.hex()


def _text(octets: bytes) -> str | None:
    if len(octets) >= _SHORTEST_TEXT and all(0x20 <= octet < 0x7F for octet in octets):
        return octets.decode("ascii")
    return None


def _octets(octets: bytes) -> Tree:
    """Octets as hex, with what else they may mean."""
    tree: Tree = {"hex": octets.hex()}
    text = _text(octets)
    if text is not None:
        tree["text"] = text
    elif len(octets) == 12 and (clock := CosemDateTime.from_bytes(octets)).is_moment:
        tree["date_time"] = str(clock)
    elif len(octets) == 6 and octets[5] == 0xFF:
        obis = Obis(*octets)
        tree["obis"] = obis.dotted
        tree["meaning"] = obis.describe()
    return tree


def explain_data(data: Data) -> Explained:
    """A value by its type: `{"enum": 3}`; octet-strings with text, date-time or OBIS code beside."""
    label, value = data.type.label, data.value
    if isinstance(value, CompactArray):
        return {label: [explain_data(item) for item in value.items]}
    if isinstance(value, tuple):
        return {label: [explain_data(item) for item in value]}
    if isinstance(value, bytes):
        if data.type != DataType.OCTET_STRING:
            # The type `time` has its own name for its octets.
            return {label: value.hex(), "shown" if label == "time" else "time": explain_time(value)}
        tree = _octets(value)
        return {label: tree.pop("hex"), **tree}
    if isinstance(value, float) and not math.isfinite(value):
        # JSON has no such numbers.
        return {label: str(value)}
    if isinstance(value, str):
        octets = value.encode("utf-8", "surrogateescape")
        shown = octets.decode("utf-8", "backslashreplace")
        return {label: shown} if shown == value else {label: shown, "hex": octets.hex()}
    return {label: value}


def _items(values: tuple[object, ...]) -> Iterator[Explained]:
    for value in values:
        yield _plain(value)


def _plain(value: object) -> Explained:  # noqa: PLR0911 - one line for each kind
    if isinstance(value, Data):
        return explain_data(value)
    if isinstance(value, AttributeDescriptor):
        return _attribute(value)
    if isinstance(value, MethodDescriptor):
        return _method(value)
    if isinstance(value, Selection):
        return {"selector": value.selector, "parameters": explain_data(value.parameters)}
    if isinstance(value, enum.Enum) and isinstance(value, int):
        return words(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return list(_items(value))  # pyright: ignore[reportUnknownArgumentType] - each is narrowed above
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def explain(octets: bytes, keys: SecurityKeys | None = None, system_title: bytes = b"") -> Tree:
    """Explain octets that stand alone: see `Explainer`."""
    return Explainer(keys, system_title).explain(octets)


__all__ = ["Explained", "Explainer", "Tree", "explain", "explain_data", "explain_time"]
