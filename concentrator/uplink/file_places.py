"""Where files are put: an HTTP server, an SFTP server, or a folder that the head-end fetches from.

Each place takes a file whole or not at all: nobody ever reads half of one. `put` returns when the file is safe there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import asyncssh
import httpx

from concentrator.client_tls import client_context
from concentrator.config import ConfigError
from concentrator.config_sections import FilesSection
from concentrator.uplink.uplink import UplinkLostError

_TIMEOUT_S = 60.0
_LONGEST_REASON = 200


class FilePlace(Protocol):
    """Somewhere to put files; open from `open()` until `close()`."""

    async def open(self) -> None:
        """Connect, where there is something to connect to.

        Raises:
            UplinkLostError: it cannot be reached, or refuses us.
        """
        ...

    async def put(self, name: str, data: bytes, media_type: str) -> None:
        """Put one file there; one of the same name is replaced.

        Raises:
            UplinkLostError: it is not there; the text says why.
        """
        ...

    async def close(self) -> None:
        """Let go of the connection."""
        ...


def make_place(settings: FilesSection) -> FilePlace:
    """The place that the URL of a section names.

    Raises:
        ConfigError: a file with a password or a key cannot be used.
    """
    scheme = urlsplit(settings.url).scheme
    try:
        if scheme == "file":
            return FolderPlace(Path(unquote(urlsplit(settings.url).path)), settings.most_files)
        if scheme == "sftp":
            return SftpPlace(settings)
        return HttpPlace(settings)
    except (OSError, ValueError, ssl.SSLError, asyncssh.KeyImportError) as error:
        raise ConfigError(
            f"files {settings.name}: a certificate, key or password file cannot be used: {error}"
        ) from error


def _password(settings: FilesSection) -> str:
    return Path(settings.password_file).read_text().strip() if settings.password_file else ""


class HttpPlace:
    """PUT (or POST) to a URL, with TLS and a client certificate, a password or a token."""

    def __init__(self, settings: FilesSection) -> None:
        context: ssl.SSLContext | bool = True
        if settings.url.startswith("https"):
            context = client_context(settings.ca_file, settings.certificate_file, settings.private_key_file)
        password = _password(settings)
        # POST goes to the very address that was given, PUT to a name below it.
        is_folder = settings.method == "POST" or settings.url.endswith("/")
        self._url = settings.url if is_folder else settings.url + "/"
        self._method = settings.method
        self._client = httpx.AsyncClient(
            verify=context,
            auth=httpx.BasicAuth(settings.username, password) if settings.username else None,
            headers={"Authorization": f"Bearer {password}"} if password and not settings.username else {},
            timeout=_TIMEOUT_S,
            follow_redirects=False,
        )

    async def open(self) -> None:
        """Nothing: each file is a request of its own."""

    async def put(self, name: str, data: bytes, media_type: str) -> None:
        """See `FilePlace`."""
        url = self._url if self._method == "POST" else self._url + name
        headers = {"Content-Type": media_type, "Content-Disposition": f'attachment; filename="{name}"'}
        if name.endswith(".gz"):
            headers["Content-Encoding"] = "gzip"
        try:
            answer = await self._client.request(self._method, url, content=data, headers=headers)
        except (httpx.HTTPError, OSError) as error:
            raise UplinkLostError(f"{name}: {error or type(error).__name__}") from error
        if not answer.is_success:
            reason = answer.text[:_LONGEST_REASON].strip()
            raise UplinkLostError(f"{name}: refused with status {answer.status_code} {reason}".strip())

    async def close(self) -> None:
        """Close what is kept alive."""
        await self._client.aclose()


class SftpPlace:
    """An SFTP server whose host key is known. Files are written beside and renamed when they are whole."""

    def __init__(self, settings: FilesSection) -> None:
        url = urlsplit(settings.url)
        self._host, self._port = url.hostname or "", url.port or 22
        self._folder = unquote(url.path).rstrip("/") or "."
        self._settings = settings
        self._password = _password(settings)
        self._keys = (
            [asyncssh.read_private_key(settings.private_key_file)] if settings.private_key_file else []
        )
        self._connection: asyncssh.SSHClientConnection | None = None
        self._client: asyncssh.SFTPClient | None = None

    async def open(self) -> None:
        """See `FilePlace`."""
        settings = self._settings
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                self._connection = await asyncssh.connect(
                    self._host,
                    self._port,
                    username=settings.username or None,
                    password=self._password or None,
                    client_keys=self._keys or None,
                    known_hosts=settings.known_hosts_file,
                    agent_path=None,
                    config=None,
                )
                self._client = await self._connection.start_sftp_client()
        except TimeoutError:
            raise UplinkLostError("the server does not answer") from None
        except (asyncssh.Error, OSError) as error:
            raise UplinkLostError(str(error) or type(error).__name__) from error

    async def put(self, name: str, data: bytes, media_type: str) -> None:
        """See `FilePlace`."""
        del media_type
        client = self._client
        if client is None:
            raise UplinkLostError("not connected")
        part, whole = f"{self._folder}/.{name}.part", f"{self._folder}/{name}"
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                async with client.open(part, "wb") as file:
                    await file.write(data)
                    # Not every server can; the rename below is what makes it whole.
                    with contextlib.suppress(asyncssh.SFTPOpUnsupported):
                        await file.fsync()
                try:
                    await client.posix_rename(part, whole)
                except asyncssh.SFTPOpUnsupported:
                    with contextlib.suppress(asyncssh.SFTPNoSuchFile):
                        await client.remove(whole)
                    await client.rename(part, whole)
        except TimeoutError:
            raise UplinkLostError(f"{name}: the server does not answer any more") from None
        except (asyncssh.Error, OSError) as error:
            raise UplinkLostError(f"{name}: {error or type(error).__name__}") from error

    async def close(self) -> None:
        """End the session."""
        if self._client is not None:
            self._client.exit()
        if self._connection is not None:
            self._connection.close()
            with contextlib.suppress(asyncssh.Error, OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._connection.wait_closed()
        self._client = self._connection = None


class FolderPlace:
    """A folder on the box, from which the head-end fetches and deletes; it never grows beyond `most_files`."""

    def __init__(self, folder: Path, most_files: int) -> None:
        self._folder = folder
        self._most_files = most_files

    async def open(self) -> None:
        """See `FilePlace`."""
        try:
            # Its parent has to be there: a disk that is not mounted must not be filled beside it.
            await asyncio.to_thread(self._folder.mkdir, exist_ok=True)
        except OSError as error:
            raise UplinkLostError(f"folder {self._folder}: {error.strerror}") from error

    async def put(self, name: str, data: bytes, media_type: str) -> None:
        """See `FilePlace`."""
        del media_type
        try:
            await asyncio.to_thread(self._write, name, data)
        except OSError as error:
            raise UplinkLostError(f"folder {self._folder}: {name}: {error.strerror}") from error

    def _write(self, name: str, data: bytes) -> None:
        waiting = sum(not one.startswith(".") for one in os.listdir(self._folder))
        if waiting >= self._most_files and not (self._folder / name).exists():
            raise UplinkLostError(
                f"folder {self._folder}: {waiting} files wait there, at most {self._most_files} may: "
                "is anybody fetching and deleting them?"
            )
        part = self._folder / f".{name}.part"
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._folder / name)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    async def close(self) -> None:
        """Nothing is open."""
