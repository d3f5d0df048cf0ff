"""The folder of firmware images on the box, and what is to be said of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from concentrator.collection.firmware.errors import FirmwareImageError
from concentrator.collection.firmware.manifest import SignedImage, TrustedKeys, load_signed_image
from concentrator.config import FirmwareSection

_MOST_SHOWN = 50


class FirmwareLibrary:
    """Images by the name of their manifest, such as `meter-2.1.json`. Keys are read anew at each use."""

    def __init__(self, settings: FirmwareSection, state_directory: Path) -> None:
        self.folder = Path(settings.folder) if settings.folder else state_directory / "meter_firmware"
        self._keys = [Path(name.strip()) for name in settings.trusted_keys.split(",") if name.strip()]
        # Checking takes reading and hashing; what has not changed since need not be checked again to be listed.
        self._listed: dict[str, tuple[tuple[object, ...], dict[str, Any]]] = {}

    def keys(self) -> TrustedKeys:
        """The public keys that the configuration names. Raises FirmwareImageError."""
        return TrustedKeys.load(self._keys)

    def load(self, name: str) -> SignedImage:
        """Read and check one image.

        Raises:
            FirmwareImageError: no meter may be given it; the text says why.
        """
        if not name.endswith(".json") or Path(name).name != name:
            raise FirmwareImageError(
                f"image: got {name[:80]!r}; allowed: the name of a manifest in {self.folder}, such as meter-2.1.json"
            )
        return load_signed_image(self.folder / name, self.keys())

    def listing(self) -> list[dict[str, Any]]:
        """Every manifest in the folder, with what it says, or why it is not to be used."""
        try:
            names = sorted(path.name for path in self.folder.glob("*.json"))[:_MOST_SHOWN]
        except OSError:
            return []
        listed: dict[str, tuple[tuple[object, ...], dict[str, Any]]] = {}
        for name in names:
            stamp = self._stamp()
            known = self._listed.get(name)
            listed[name] = known if known is not None and known[0] == stamp else (stamp, self._entry(name))
        self._listed = listed
        return [entry for _stamp, entry in listed.values()]

    def _stamp(self) -> tuple[object, ...]:
        """Changes when a file of the folder or a key does."""
        found: list[object] = []
        try:
            for path in sorted([*self.folder.iterdir(), *self._keys]):
                stat = path.stat()
                found.append((path.name, stat.st_size, stat.st_mtime_ns))
        except OSError as error:
            found.append(str(error))
        return tuple(found)

    def _entry(self, name: str) -> dict[str, Any]:
        try:
            manifest = self.load(name).manifest
        except FirmwareImageError as error:
            return {"image": name, "reason": str(error)}
        return {
            "image": name,
            "reason": "",
            "manufacturer": manifest.manufacturer,
            "model": manifest.model,
            "from_versions": list(manifest.from_versions),
            "to_version": manifest.to_version,
            "size": manifest.size,
        }
