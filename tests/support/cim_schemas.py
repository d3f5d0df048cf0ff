"""The schemas of CIM messages, as a head-end would use them."""

from __future__ import annotations

import functools
import json
from importlib.resources import files

import jsonschema
import xmlschema

_FOLDER = files("concentrator.cim").joinpath("schemas")
_XML = ("MeterReadings.xsd", "EndDeviceEvents.xsd", "EndDeviceControls.xsd", "Message.xsd")


@functools.cache
def _xml_schema() -> xmlschema.XMLSchema:
    return xmlschema.XMLSchema([_FOLDER.joinpath(name).read_text() for name in reversed(_XML)])


@functools.cache
def _json_schema() -> jsonschema.Draft202012Validator:
    schema = json.loads(_FOLDER.joinpath("cim.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def check_xml(data: bytes) -> None:
    _xml_schema().validate(data.decode())


def check_json(data: bytes) -> None:
    _json_schema().validate(json.loads(data))
