"""multipart/form-data (RFC 7578) as it comes: fields whole, a file in pieces that need little memory."""

from __future__ import annotations

from collections.abc import Generator
from email.parser import BytesParser
from email.policy import HTTP
from enum import Enum, auto
from typing import NamedTuple

from concentrator.errors import RemoteError

_LARGEST_HEAD_OCTETS = 4096
_LARGEST_FIELD_OCTETS = 4096
_MOST_PARTS = 20


class UploadError(RemoteError):
    """What came is no form, or ends too early."""


class FormField(NamedTuple):
    """A field of the form."""

    name: str
    text: str


class FilePiece(NamedTuple):
    """Some octets of a file."""

    name: str
    content: bytes


class _At(Enum):
    BOUNDARY = auto()
    HEAD = auto()
    BODY = auto()
    END = auto()


class FormReader:
    """Octets in, fields and pieces of files out; the same however the octets are cut.

    Raises:
        UploadError: the type of the content has no boundary.
    """

    def __init__(self, content_type: str) -> None:
        head = b"Content-Type: " + content_type.encode("latin-1", "replace").replace(b"\n", b"") + b"\r\n\r\n"
        message = BytesParser(policy=HTTP).parsebytes(head)
        boundary = message.get_boundary("")
        if message.get_content_type() != "multipart/form-data" or not 1 <= len(boundary) <= 70:  # noqa: PLR2004 - RFC 2046
            raise UploadError("a form with a file is expected (multipart/form-data)")
        self._delimiter = b"\r\n--" + boundary.encode("latin-1", "replace")
        # The first boundary has no line before it.
        self._buffer = b"\r\n"
        self._at = _At.BOUNDARY
        self._name, self._is_file, self._text, self._parts = "", False, b"", 0

    @property
    def is_over(self) -> bool:
        """Whether the form has come to its end."""
        return self._at is _At.END

    def receive_data(self, data: bytes) -> Generator[FormField | FilePiece]:
        """What follows from more octets.

        Raises:
            UploadError: this is no form, or a field is too large.
        """
        self._buffer += data
        while True:
            before = (self._at, len(self._buffer))
            match self._at:
                case _At.BOUNDARY:
                    self._take_boundary()
                case _At.HEAD:
                    self._take_head()
                case _At.BODY:
                    yield from self._take_body()
                case _At.END:
                    return
            if before == (self._at, len(self._buffer)):
                return

    def _take_boundary(self) -> None:
        """The end of a boundary's line; what may stand before the first one is not looked at."""
        place = self._buffer.find(self._delimiter)
        after = place + len(self._delimiter)
        if place < 0 or len(self._buffer) < after + 2:
            if place < 0 and len(self._buffer) > _LARGEST_HEAD_OCTETS:
                raise UploadError("the form has no boundary")
            return
        mark = self._buffer[after : after + 2]
        if mark == b"--":
            self._at = _At.END
        elif mark == b"\r\n":
            self._at = _At.HEAD
        else:
            raise UploadError("the form has a damaged boundary")
        # The line's end stays: a head may be empty.
        self._buffer = self._buffer[after:]

    def _take_head(self) -> None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > _LARGEST_HEAD_OCTETS:
                raise UploadError("a part of the form has too long a head")
            return
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise UploadError(f"the form has more than {_MOST_PARTS} parts")
        message = BytesParser(policy=HTTP).parsebytes(self._buffer[2 : end + 4])
        name = message.get_param("name", header="content-disposition")
        self._name = name if isinstance(name, str) else ""
        self._is_file = message.get_param("filename", header="content-disposition") is not None
        self._text = b""
        self._buffer = self._buffer[end + 4 :]
        self._at = _At.BODY

    def _take_body(self) -> Generator[FormField | FilePiece]:
        place = self._buffer.find(self._delimiter)
        sure = place if place >= 0 else max(0, len(self._buffer) - len(self._delimiter) + 1)
        content, self._buffer = self._buffer[:sure], self._buffer[sure:]
        if self._is_file:
            if content:
                yield FilePiece(self._name, content)
        else:
            self._text += content
            if len(self._text) > _LARGEST_FIELD_OCTETS:
                raise UploadError(f"a field of the form has more than {_LARGEST_FIELD_OCTETS} octets")
        if place >= 0:
            self._at = _At.BOUNDARY
            if not self._is_file:
                yield FormField(self._name, self._text.decode("utf-8", "replace"))
