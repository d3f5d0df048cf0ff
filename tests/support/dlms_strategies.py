"""Random COSEM values and APDUs, for round trips and for oracles."""

import struct

from hypothesis import strategies as st

from concentrator.dlms import axdr
from concentrator.dlms.acse import AssociationRequest, AssociationResponse, ReleaseRequest
from concentrator.dlms.apdu.access import AccessKind, AccessRequest, AccessResponse, AccessSpecification
from concentrator.dlms.apdu.action import ActionOutcome, ActionRequestNormal, ActionResponseNormal
from concentrator.dlms.apdu.get import (
    GetRequestNormal,
    GetRequestWithList,
    GetResponseWithBlock,
    GetResponseWithList,
)
from concentrator.dlms.apdu.initiate import InitiateRequest, InitiateResponse
from concentrator.dlms.apdu.notification import DataNotification, EventNotification
from concentrator.dlms.apdu.protection import GeneralBlockTransfer, GeneralCiphered
from concentrator.dlms.apdu.set import SetRequestNormal, SetRequestWithDatablock, SetResponseWithList
from concentrator.dlms.apdu.short_name import (
    BlockNumberAccess,
    BlockReceived,
    InformationReport,
    ReadBlock,
    ReadRequest,
    ReadResponse,
    ResultBlock,
    VariableName,
    WriteRequest,
    WriteResponse,
)
from concentrator.dlms.attributes import AttributeDescriptor, MethodDescriptor, Selection
from concentrator.dlms.axdr import Data, DataType
from concentrator.dlms.codes import Conformance, DataAccessResult
from concentrator.obis import Obis

octet = st.integers(0, 255)
obis = st.builds(Obis, octet, octet, octet, octet, octet, octet)
_RANGES = {
    "b": (-128, 127),
    "h": (-(2**15), 2**15 - 1),
    "i": (-(2**31), 2**31 - 1),
    "q": (-(2**63), 2**63 - 1),
}


def values_of(kind):
    code = axdr.FIXED_FORMATS[kind]
    if code in "fd":
        return st.floats(width=32 if code == "f" else 64, allow_nan=False)
    if code.endswith("s"):
        return st.binary(min_size=int(code[:-1]), max_size=int(code[:-1]))
    low, high = _RANGES.get(code) or (0, 2 ** (8 * struct.calcsize(code)) - 1)
    return st.integers(low, high)


scalars = st.one_of(
    st.sampled_from([DataType.NULL_DATA, DataType.DONT_CARE]).map(Data),
    st.builds(Data, st.just(DataType.BOOLEAN), st.booleans()),
    st.builds(Data, st.just(DataType.BIT_STRING), st.text("01", max_size=40)),
    st.builds(Data, st.just(DataType.OCTET_STRING), st.binary(max_size=200)),
    st.builds(
        Data, st.just(DataType.VISIBLE_STRING), st.binary(max_size=20).map(lambda b: b.decode("latin-1"))
    ),
    st.builds(Data, st.just(DataType.UTF8_STRING), st.text(max_size=20)),
    *[st.builds(Data, st.just(kind), values_of(kind)) for kind in axdr.FIXED_FORMATS],
)
data = st.recursive(
    scalars,
    lambda children: st.builds(
        Data, st.sampled_from([DataType.ARRAY, DataType.STRUCTURE]), st.lists(children, max_size=5).map(tuple)
    ),
    max_leaves=20,
)
attribute = st.builds(AttributeDescriptor, st.integers(0, 65535), obis, st.integers(-128, 127))
method = st.builds(MethodDescriptor, st.integers(0, 65535), obis, st.integers(-128, 127))
selection = st.none() | st.builds(Selection, octet, data)
results = st.sampled_from(DataAccessResult)
number = st.integers(0, 2**32 - 1)
conformance = st.integers(0, 2**24 - 1).map(Conformance)
optional_octets = st.none() | st.binary(min_size=1, max_size=16)
block_number = st.integers(0, 65535)
variables = st.lists(
    st.one_of(
        st.builds(VariableName, block_number),
        st.builds(VariableName, block_number, octet, data),
        st.builds(BlockNumberAccess, block_number),
        st.builds(ReadBlock, st.booleans(), block_number, st.none() | st.binary(max_size=50)),
    ),
    max_size=4,
).map(tuple)
values = st.lists(data, max_size=4).map(tuple)
accesses = st.lists(
    st.one_of(
        st.builds(
            AccessSpecification, st.sampled_from([AccessKind.GET, AccessKind.SET]), attribute, st.none()
        ),
        st.builds(AccessSpecification, st.just(AccessKind.ACTION), method, st.none()),
        st.builds(
            AccessSpecification,
            st.just(AccessKind.GET_WITH_SELECTION),
            attribute,
            st.builds(Selection, octet, data),
        ),
    ),
    max_size=4,
).map(tuple)
block_received = st.builds(BlockReceived, block_number)
apdu_values = st.one_of(
    st.builds(AccessRequest, number, optional_octets, accesses, values),
    st.builds(
        AccessResponse, number, optional_octets, st.none() | accesses, values,
        st.lists(st.tuples(st.integers(1, 3), octet), max_size=4).map(tuple),
    ),
    st.builds(ReadRequest, variables),
    st.builds(
        ReadResponse,
        st.lists(
            data | results | block_received
            | st.builds(ResultBlock, st.booleans(), block_number, st.binary(max_size=50)),
            max_size=4,
        ).map(tuple),
    ),
    st.builds(WriteRequest, variables, values, st.booleans()),
    st.builds(WriteResponse, st.lists(st.none() | results | block_received, max_size=4).map(tuple)),
    st.builds(InformationReport, optional_octets, variables, values),
    st.builds(GetRequestNormal, octet, attribute, selection),
    st.builds(GetRequestWithList, octet, st.lists(st.tuples(attribute, selection), max_size=5).map(tuple)),
    st.builds(GetResponseWithBlock, octet, st.booleans(), number, st.binary(max_size=300) | results),
    st.builds(GetResponseWithList, octet, st.lists(data | results, max_size=5).map(tuple)),
    st.builds(SetRequestNormal, octet, attribute, selection, data),
    st.builds(SetRequestWithDatablock, octet, st.booleans(), number, st.binary(max_size=300)),
    st.builds(SetResponseWithList, octet, st.lists(results, max_size=5).map(tuple)),
    st.builds(ActionRequestNormal, octet, method, st.none() | data),
    st.builds(ActionResponseNormal, octet, st.builds(ActionOutcome, results, st.none() | data | results)),
    st.builds(DataNotification, number, st.none() | st.binary(min_size=12, max_size=12), data),
    st.builds(EventNotification, optional_octets, attribute, data),
    st.builds(InitiateRequest, conformance, st.integers(0, 65535), optional_octets, st.booleans()),
    st.builds(InitiateResponse, conformance, st.integers(0, 65535)),
    st.builds(GeneralCiphered, st.just(0xDB), st.binary(min_size=8, max_size=8), st.binary(max_size=300)),
    st.builds(
        GeneralBlockTransfer,
        st.booleans(), st.booleans(), st.integers(0, 63), st.integers(0, 65535), st.integers(0, 65535),
        st.binary(max_size=300),
    ),
    st.builds(
        AssociationRequest,
        st.sampled_from([1, 2, 3, 4]),
        optional_octets,
        calling_ap_title=optional_octets,
        mechanism=st.none() | st.integers(0, 7),
    ),
    st.builds(
        AssociationResponse, st.sampled_from([1, 3]), st.integers(0, 2), st.sampled_from([1, 2]),
        st.integers(0, 14), st.none() | st.binary(max_size=300),
    ),
    st.builds(ReleaseRequest, st.none() | st.integers(0, 30), optional_octets),
)  # fmt: skip
