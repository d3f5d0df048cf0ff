"""Foreign encoders and decoders as oracles: what they encode means the same here, and the other way round.

pydlms takes nearly every APDU. dlms-cosem and Gurux's translator take fewer; where either is wrong, what it gets
wrong stands beside the strategy that leaves it out. ACSE is checked by asn1tools from the ASN.1 of the standard.
"""

import contextlib
import io

import asn1tools
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from concentrator.dlms import apdu, axdr
from concentrator.dlms.acse import AssociationRequest, AssociationResponse, ReleaseRequest, ReleaseResponse
from concentrator.dlms.apdu.access import AccessRequest, AccessResponse
from concentrator.dlms.apdu.action import (
    ActionOutcome,
    ActionRequestNextPblock,
    ActionRequestNormal,
    ActionRequestWithFirstPblock,
    ActionRequestWithList,
    ActionRequestWithPblock,
    ActionResponseNextPblock,
    ActionResponseNormal,
    ActionResponseWithList,
    ActionResponseWithPblock,
)
from concentrator.dlms.apdu.get import (
    GetRequestNext,
    GetRequestNormal,
    GetRequestWithList,
    GetResponseNormal,
    GetResponseWithBlock,
)
from concentrator.dlms.apdu.initiate import ConfirmedServiceError, InitiateRequest, InitiateResponse
from concentrator.dlms.apdu.notification import DataNotification, EventNotification, ExceptionResponse
from concentrator.dlms.apdu.protection import GeneralBlockTransfer
from concentrator.dlms.apdu.set import (
    SetRequestNormal,
    SetRequestWithDatablock,
    SetRequestWithFirstDatablock,
    SetRequestWithList,
    SetResponseDatablock,
    SetResponseLastDatablock,
    SetResponseNormal,
)
from concentrator.dlms.apdu.short_name import InformationReport, VariableName, WriteResponse
from concentrator.dlms.attributes import AttributeDescriptor, MethodDescriptor
from concentrator.dlms.axdr import Data, DataType
from concentrator.dlms.codes import Conformance, DataAccessResult

from dlms_strategies import (
    accesses,
    apdu_values,
    attribute,
    conformance,
    data,
    method,
    number,
    obis,
    octet,
    results,
    selection,
    values_of,
)

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))

raw = st.binary(max_size=60)
lists = {"min_size": 1, "max_size": 4}
named = st.lists(st.tuples(attribute, selection), **lists).map(tuple)
one_name = st.tuples(attribute, selection).map(lambda pair: (pair,))
methods = st.lists(method, **lists).map(tuple)
outcomes = st.builds(ActionOutcome, results, st.none() | data | results)
refusals = st.sampled_from([result for result in DataAccessResult if result])


def as_many(first, kind, strategy):
    """Builds `kind` of what `first` gives and a list of as many of `strategy`."""
    return st.integers(1, 3).flatmap(
        lambda count: st.builds(
            kind,
            octet,
            st.lists(first, min_size=count, max_size=count).map(tuple),
            st.lists(strategy, min_size=count, max_size=count).map(tuple),
        )
    )


def matched_access(draw):
    found = draw(accesses)
    values = draw(st.lists(data, min_size=len(found), max_size=len(found)).map(tuple))
    if draw(st.booleans()):
        return AccessRequest(draw(number), None, found, values)
    codes = tuple([(min(max(1, item.kind), 3), draw(octet)) for item in found])
    return AccessResponse(draw(number), None, draw(st.sampled_from([None, found])), values, codes)


# What the strategies of the codec do not cover, and instead of those that may be inconsistent.
more_apdus = st.one_of(
    st.composite(matched_access)(),
    st.builds(GetRequestNext, octet, number),
    st.builds(GetResponseNormal, octet, data.map(lambda value: value.to_bytes()) | refusals),
    as_many(st.tuples(attribute, selection), SetRequestWithList, data),
    st.builds(SetRequestWithFirstDatablock, octet, one_name, st.booleans(), number, raw, st.just(False)),
    st.builds(SetRequestWithFirstDatablock, octet, named, st.booleans(), number, raw, st.just(True)),
    st.builds(SetResponseNormal, octet, results),
    st.builds(SetResponseDatablock, octet, number),
    st.builds(SetResponseLastDatablock, octet, results.map(lambda one: (one,)), number),
    as_many(method, ActionRequestWithList, data),
    st.builds(
        ActionRequestWithFirstPblock, octet, method.map(lambda one: (one,)), st.booleans(), number, raw,
        st.just(False),
    ),
    st.builds(ActionRequestWithFirstPblock, octet, methods, st.booleans(), number, raw, st.just(True)),
    st.builds(ActionRequestWithPblock, octet, st.booleans(), number, raw),
    st.builds(ActionRequestNextPblock, octet, number),
    st.builds(ActionResponseWithPblock, octet, st.booleans(), number, raw),
    st.builds(ActionResponseNextPblock, octet, number),
    st.builds(ActionResponseWithList, octet, st.lists(outcomes, **lists).map(tuple)),
    st.builds(ExceptionResponse, st.integers(1, 2), st.integers(1, 5)),
    st.builds(ExceptionResponse, st.just(1), st.just(6), number),
    st.builds(ConfirmedServiceError, st.sampled_from([1, 5, 6]), st.integers(0, 5), st.integers(1, 3)),
)  # fmt: skip


def comparable(value):
    """Whether pydlms says the same with the same octets, where several encodings mean the same."""
    if isinstance(value, AccessRequest | AccessResponse):
        # Counts that do not fit each other: theirs refuses when decoding, ours when serving.
        return False
    if isinstance(value, InformationReport):
        # IEC 62056-5-3 has Variable-Access-Specification here; theirs takes its choice of names only.
        return all(isinstance(name, VariableName) and name.selector is None for name in value.variables)
    if isinstance(value, WriteResponse):
        # data-access-error of success, which the standard writes as the choice success.
        return DataAccessResult.SUCCESS not in value.results
    if isinstance(value, AssociationRequest | AssociationResponse):
        # Theirs leaves out mechanism 0 and an empty user-information.
        return value.mechanism != 0 and value.user_information != b""
    return not (isinstance(value, ReleaseRequest) and value.user_information == b"")


def leaves(value):
    """All numbers and octets of an APDU, theirs or ours, in whatever fields they stand."""
    if isinstance(value, Data):
        return [value.to_bytes()]
    if type(value).__name__ == "DlmsData":
        from pydlms.cosem.data import encode_data

        return [encode_data(value)]
    if value is None:
        return []
    if isinstance(value, bytes | bytearray):
        return [bytes(value)]
    if isinstance(value, int):
        return [int(value)]
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in leaves(item)]
    names = getattr(value, "__slots__", None) or vars(value)
    return [leaf for name in names for leaf in leaves(getattr(value, name))]


def their_decoder(octets):
    from pydlms.apdu import acse, sn, xdlms

    if octets[0] in (0x60, 0x61, 0x62, 0x63):
        return acse.decode_acse(octets)
    if octets[0] in (0x05, 0x06, 0x0C, 0x0D, 0x16, 0x18):
        return sn.decode_sn_apdu(octets)
    return xdlms.decode_apdu(octets)


@settings(max_examples=600, deadline=None)
@given((apdu_values | more_apdus).filter(lambda value: isinstance(value, AccessRequest) or comparable(value)))
def test_pydlms_decodes_what_we_encode_and_encodes_what_we_decode(value):
    from pydlms.apdu.gbt import decode_gbt, encode_gbt

    octets = value.to_bytes()
    if octets[0] in (0xDB, 0xDC):
        return
    if isinstance(value, GeneralBlockTransfer):
        assert encode_gbt(decode_gbt(octets)) == octets
        return
    if isinstance(value, AccessRequest) and len(value.specifications) != len(value.values):
        return
    theirs = their_decoder(octets)
    # Whatever they understood, they encode it as we did: so we decode what they encode.
    assert theirs.to_bytes() == octets
    assert apdu.decode(octets) == value
    if isinstance(value, GetRequestNormal | SetRequestNormal | ActionRequestNormal | EventNotification):
        kinds = {type(value).__name__, type(value).__name__ + "Request"}
        assert type(theirs).__name__ in kinds
        assert set(map(repr, leaves(theirs))) <= {*map(repr, leaves(value)), "0", "True", "False"}


@settings(max_examples=300, deadline=None)
@given(data)
def test_pydlms_agrees_on_every_value(value):
    from pydlms.cosem.data import decode_data, encode_data

    octets = value.to_bytes()
    theirs, end = decode_data(octets)
    assert end == len(octets)
    assert encode_data(theirs) == octets
    assert axdr.decode(encode_data(theirs)) == value
    native, python = value.native, theirs.to_python()
    if value.type not in (DataType.ARRAY, DataType.STRUCTURE, DataType.BIT_STRING):
        assert native == python


# dlms-cosem and Gurux know fewer classes, types and flags.

_SIMPLE = [
    kind
    for kind in axdr.FIXED_FORMATS
    if kind not in (*axdr.DELTA_TYPES, DataType.DATE_TIME, DataType.DATE, DataType.TIME, DataType.BCD)
]
common_scalars = st.one_of(
    st.just(axdr.NULL),
    st.builds(Data, st.just(DataType.BIT_STRING), st.text("01", min_size=1, max_size=40)),
    st.builds(Data, st.just(DataType.OCTET_STRING), st.binary(max_size=20)),
    st.builds(Data, st.just(DataType.VISIBLE_STRING), st.text("abc 019", max_size=20)),
    st.builds(Data, st.just(DataType.UTF8_STRING), st.text("abc 019", max_size=20)),
    *[st.builds(Data, st.just(kind), values_of(kind)) for kind in _SIMPLE],
)
common_data = st.recursive(
    common_scalars,
    lambda children: st.builds(
        Data, st.sampled_from([DataType.ARRAY, DataType.STRUCTURE]), st.lists(children, **lists).map(tuple)
    ),
    max_leaves=10,
)
classes = st.sampled_from([1, 3, 7, 8, 15])
common_attribute = st.builds(AttributeDescriptor, classes, obis, st.integers(1, 20))
common_method = st.builds(MethodDescriptor, classes, obis, st.integers(1, 20))
flags = st.sampled_from([0x00, 0x40, 0x80, 0xC0])
blocks = st.binary(min_size=1, max_size=30)


def common_apdus(invoke):
    """What both take, with these invoke-ids."""
    return [
        st.builds(GetRequestNormal, invoke, common_attribute, st.none()),
        st.builds(GetRequestNext, invoke, number),
        st.builds(GetResponseWithBlock, invoke, st.booleans(), number, blocks),
        st.builds(SetRequestNormal, invoke, common_attribute, st.none(), common_data),
        st.builds(SetResponseNormal, invoke, refusals),
        st.builds(ActionRequestNormal, invoke, common_method, st.none() | common_data),
        st.builds(ActionResponseNormal, invoke, st.builds(ActionOutcome, st.just(0), common_data)),
        st.builds(DataNotification, st.integers(0, 0xFFFFFF), st.none(), common_data),
        st.builds(ExceptionResponse, st.integers(1, 2), st.integers(1, 3)),
    ]


invoke = st.builds(lambda low, high: low | high, st.integers(0, 15), flags)
# Theirs drops the conformance bits that it has no name for, general-protection and general-block-transfer among them,
# writes the date-time of a data-notification with a length of 1 (A-XDR: 0C), and encodes lists of results without
# four of the types.
_COSEM_CONFORMANCE = (
    Conformance.GET | Conformance.SET | Conformance.ACTION | Conformance.SELECTIVE_ACCESS
    | Conformance.EVENT_NOTIFICATION | Conformance.ACCESS | Conformance.DATA_NOTIFICATION
    | Conformance.MULTIPLE_REFERENCES | Conformance.BLOCK_TRANSFER_WITH_GET_OR_READ
)  # fmt: skip
dlms_cosem_apdus = st.one_of(
    *common_apdus(invoke),
    st.builds(
        GetRequestWithList, invoke, st.lists(st.tuples(common_attribute, st.none()), **lists).map(tuple)
    ),
    st.builds(
        InitiateRequest, conformance.map(lambda bits: bits & _COSEM_CONFORMANCE), st.integers(0, 0xFFFF)
    ),
    st.builds(
        InitiateResponse, conformance.map(lambda bits: bits & _COSEM_CONFORMANCE), st.integers(0, 0xFFFF)
    ),
)


@settings(max_examples=300, deadline=None)
@given(dlms_cosem_apdus)
def test_dlms_cosem_decodes_and_encodes_the_same(value):
    from dlms_cosem.connection import XDlmsApduFactory

    octets = value.to_bytes()
    theirs = XDlmsApduFactory.apdu_from_bytes(octets)
    assert bytes(theirs.to_bytes()) == octets
    assert apdu.decode(bytes(theirs.to_bytes())) == value


# Theirs decodes neither floats nor utf8-strings, and takes the length of a bit-string for one in octets.
@settings(max_examples=300, deadline=None)
@given(
    common_scalars.filter(
        lambda value: (
            value.type not in (DataType.BIT_STRING, DataType.FLOAT32, DataType.FLOAT64, DataType.UTF8_STRING)
        )
    )
)
def test_dlms_cosem_agrees_on_values(value):
    from dlms_cosem import utils

    assert utils.parse_as_dlms_data(value.to_bytes()) == value.native


# Its XML knows invoke-id 1 only, writes booleans that it cannot read, loses a date-time and lists, and forgets that
# an OPTIONAL which is absent takes an octet that says so (IEC 61334-6 6.10): return-parameters of an action.
gurux_apdus = st.one_of(
    *common_apdus(flags.map(lambda bits: bits | 1)),
    st.builds(GetResponseNormal, flags.map(lambda bits: bits | 1), common_data.map(lambda v: v.to_bytes())),
    st.builds(SetRequestWithDatablock, flags.map(lambda bits: bits | 1), st.booleans(), number, blocks),
    st.builds(SetResponseDatablock, flags.map(lambda bits: bits | 1), number),
    st.builds(EventNotification, st.none(), common_attribute, common_data),
)


@settings(max_examples=200, deadline=None)
@given(gurux_apdus)
def test_gurux_translates_to_xml_and_back(value):
    from gurux_dlms import GXByteBuffer, GXDLMSTranslator

    translator = GXDLMSTranslator()
    octets = value.to_bytes()
    with contextlib.redirect_stdout(io.StringIO()):
        again = bytes(translator.xmlToPdu(translator.pduToXml(GXByteBuffer(octets))).array())
    assert again == octets
    assert apdu.decode(again) == value


@settings(max_examples=300, deadline=None)
@given(common_scalars)
def test_gurux_agrees_on_values(value):
    from gurux_dlms import GXByteBuffer
    from gurux_dlms.internal._GXCommon import _GXCommon
    from gurux_dlms.internal._GXDataInfo import _GXDataInfo

    theirs = _GXCommon.getData(None, GXByteBuffer(value.to_bytes()), _GXDataInfo())
    native = value.native
    if isinstance(native, bytes):
        assert bytes(theirs) == native
    elif isinstance(native, float):
        assert float(theirs) == native
    elif value.type == DataType.BIT_STRING:
        assert str(theirs) == native
    else:
        assert theirs == native


# ACSE (Green Book 9.4.2 and 9.5): the ASN.1 of the standard, encoded in BER by asn1tools.

ACSE = asn1tools.compile_string(
    """
    Acse DEFINITIONS ::= BEGIN
    Apdu ::= CHOICE { aarq Aarq, aare Aare, rlrq Rlrq, rlre Rlre }
    Aarq ::= [APPLICATION 0] IMPLICIT SEQUENCE {
      protocol-version               [0]  IMPLICIT BIT STRING OPTIONAL,
      application-context-name       [1]  EXPLICIT OBJECT IDENTIFIER,
      called-AP-title                [2]  EXPLICIT OCTET STRING OPTIONAL,
      called-AE-qualifier            [3]  EXPLICIT OCTET STRING OPTIONAL,
      called-AP-invocation-id        [4]  EXPLICIT INTEGER OPTIONAL,
      called-AE-invocation-id        [5]  EXPLICIT INTEGER OPTIONAL,
      calling-AP-title               [6]  EXPLICIT OCTET STRING OPTIONAL,
      calling-AE-qualifier           [7]  EXPLICIT OCTET STRING OPTIONAL,
      calling-AP-invocation-id       [8]  EXPLICIT INTEGER OPTIONAL,
      calling-AE-invocation-id       [9]  EXPLICIT INTEGER OPTIONAL,
      sender-acse-requirements       [10] IMPLICIT BIT STRING OPTIONAL,
      mechanism-name                 [11] IMPLICIT OBJECT IDENTIFIER OPTIONAL,
      calling-authentication-value   [12] EXPLICIT Authentication-value OPTIONAL,
      implementation-information     [29] IMPLICIT OCTET STRING OPTIONAL,
      user-information               [30] EXPLICIT OCTET STRING OPTIONAL
    }
    Aare ::= [APPLICATION 1] IMPLICIT SEQUENCE {
      protocol-version               [0]  IMPLICIT BIT STRING OPTIONAL,
      application-context-name       [1]  EXPLICIT OBJECT IDENTIFIER,
      result                         [2]  EXPLICIT INTEGER,
      result-source-diagnostic       [3]  EXPLICIT Diagnostic,
      responding-AP-title            [4]  EXPLICIT OCTET STRING OPTIONAL,
      responding-AE-qualifier        [5]  EXPLICIT OCTET STRING OPTIONAL,
      responding-AP-invocation-id    [6]  EXPLICIT INTEGER OPTIONAL,
      responding-AE-invocation-id    [7]  EXPLICIT INTEGER OPTIONAL,
      responder-acse-requirements    [8]  IMPLICIT BIT STRING OPTIONAL,
      mechanism-name                 [9]  IMPLICIT OBJECT IDENTIFIER OPTIONAL,
      responding-authentication-value [10] EXPLICIT Authentication-value OPTIONAL,
      implementation-information     [29] IMPLICIT OCTET STRING OPTIONAL,
      user-information               [30] EXPLICIT OCTET STRING OPTIONAL
    }
    Rlrq ::= [APPLICATION 2] IMPLICIT SEQUENCE {
      reason                         [0]  IMPLICIT INTEGER OPTIONAL,
      user-information               [30] EXPLICIT OCTET STRING OPTIONAL
    }
    Rlre ::= [APPLICATION 3] IMPLICIT SEQUENCE {
      reason                         [0]  IMPLICIT INTEGER OPTIONAL,
      user-information               [30] EXPLICIT OCTET STRING OPTIONAL
    }
    Authentication-value ::= CHOICE {
      charstring [0] IMPLICIT OCTET STRING, bitstring [1] IMPLICIT BIT STRING
    }
    Diagnostic ::= CHOICE { acse-service-user [1] INTEGER, acse-service-provider [2] INTEGER }
    END
    """,
    "ber",
)
_CONTEXT, _MECHANISM = "2.16.756.5.8.1.", "2.16.756.5.8.2."
small = st.integers(0, 2**31 - 1)
title = st.binary(min_size=8, max_size=8)
optional = lambda strategy: st.none() | strategy  # noqa: E731
_AUTHENTICATION = (b"\x80", 1)


def present(**fields):
    return {name.replace("_", "-"): value for name, value in fields.items() if value is not None}


requests = st.builds(
    AssociationRequest,
    context=st.integers(1, 4),
    user_information=optional(raw),
    calling_ap_title=optional(title),
    calling_ae_qualifier=optional(raw),
    calling_ae_invocation_id=optional(small),
    mechanism=st.integers(1, 7),
    authentication_value=optional(raw),
    called_ap_title=optional(title),
    called_ae_qualifier=optional(raw),
    called_ap_invocation_id=optional(small),
    called_ae_invocation_id=optional(small),
    calling_ap_invocation_id=optional(small),
    implementation_information=optional(raw),
)
responses = st.builds(
    AssociationResponse,
    context=st.integers(1, 4),
    result=st.integers(0, 2),
    diagnostic_source=st.sampled_from([1, 2]),
    diagnostic=st.integers(0, 14),
    user_information=optional(raw),
    responding_ap_title=optional(title),
    responding_ae_qualifier=optional(raw),
    mechanism=st.integers(1, 7),
    authentication_value=optional(raw),
    responding_ap_invocation_id=optional(small),
    responding_ae_invocation_id=optional(small),
    implementation_information=optional(raw),
)


def authentication(value):
    return None if value is None else ("charstring", value)


@settings(max_examples=150, deadline=None)
@given(requests)
def test_asn1tools_agrees_on_aarq(value):
    theirs = ("aarq", present(
        application_context_name=f"{_CONTEXT}{int(value.context)}",
        called_AP_title=value.called_ap_title,
        called_AE_qualifier=value.called_ae_qualifier,
        called_AP_invocation_id=value.called_ap_invocation_id,
        called_AE_invocation_id=value.called_ae_invocation_id,
        calling_AP_title=value.calling_ap_title,
        calling_AE_qualifier=value.calling_ae_qualifier,
        calling_AP_invocation_id=value.calling_ap_invocation_id,
        calling_AE_invocation_id=value.calling_ae_invocation_id,
        sender_acse_requirements=_AUTHENTICATION,
        mechanism_name=f"{_MECHANISM}{int(value.mechanism)}",
        calling_authentication_value=authentication(value.authentication_value),
        implementation_information=value.implementation_information,
        user_information=value.user_information,
    ))  # fmt: skip
    assert ACSE.encode("Apdu", theirs) == value.to_bytes()
    assert ACSE.decode("Apdu", value.to_bytes()) == theirs
    assert apdu.decode(bytes(ACSE.encode("Apdu", theirs))) == value


@settings(max_examples=150, deadline=None)
@given(responses)
def test_asn1tools_agrees_on_aare(value):
    source = "acse-service-user" if value.diagnostic_source == 1 else "acse-service-provider"
    theirs = ("aare", present(
        application_context_name=f"{_CONTEXT}{int(value.context)}",
        result=value.result,
        result_source_diagnostic=(source, value.diagnostic),
        responding_AP_title=value.responding_ap_title,
        responding_AE_qualifier=value.responding_ae_qualifier,
        responding_AP_invocation_id=value.responding_ap_invocation_id,
        responding_AE_invocation_id=value.responding_ae_invocation_id,
        responder_acse_requirements=_AUTHENTICATION,
        mechanism_name=f"{_MECHANISM}{int(value.mechanism)}",
        responding_authentication_value=authentication(value.authentication_value),
        implementation_information=value.implementation_information,
        user_information=value.user_information,
    ))  # fmt: skip
    assert ACSE.encode("Apdu", theirs) == value.to_bytes()
    assert ACSE.decode("Apdu", value.to_bytes()) == theirs
    assert apdu.decode(bytes(ACSE.encode("Apdu", theirs))) == value


@pytest.mark.parametrize(("name", "kind"), [("rlrq", ReleaseRequest), ("rlre", ReleaseResponse)])
def test_asn1tools_agrees_on_release(name, kind):
    for reason in (None, 0, 1, 30):
        for information in (None, b"", b"\x01" * 200):
            theirs = (name, present(reason=reason, user_information=information))
            octets = kind(reason, information).to_bytes()
            assert ACSE.encode("Apdu", theirs) == octets
            assert ACSE.decode("Apdu", octets) == theirs
            assert apdu.decode(octets) == kind(reason, information)
