"""The configuration as page and command line change it: shown, checked, applied on trial, confirmed, reverted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

import structlog

from concentrator.access.configuration import LARGEST_OCTETS, ConfigurationFile, difference, digest_of
from concentrator.access.errors import ConfigurationChangeError
from concentrator.access.full_check import mistakes_of
from concentrator.clock import Clock

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

# Who asked for a change gets the answer before the service goes.
_RESTART_DELAY_S = 1.0
_LOOK_INTERVAL_S = 0.5
# Tells what was done, by whom and what came of it: for the audit trail.
Note = Callable[[str, str, str, str], Awaitable[None]]


class ConfigurationDesk:
    """Changes one file. `connected` gives the destinations connected now, `restart` starts the service anew."""

    def __init__(  # noqa: PLR0913 - what a change touches
        self,
        file: ConfigurationFile,
        clock: Clock,
        connected: Callable[[], Collection[str]],
        destinations: Callable[[], Collection[str]],
        restart: Callable[[], None],
        trial_s: float,
    ) -> None:
        self._file = file
        self._clock = clock
        self._connected = connected
        self._destinations = destinations
        self._restart = restart
        self._trial_s = trial_s
        self._ends_at = clock.monotonic() + trial_s
        self._going = False

    async def answer(self, do: str, request: Mapping[str, Any], who: str, note: Note) -> dict[str, Any]:
        """Do what is asked: show, state, check, apply, confirm or revert.

        Raises:
            ConfigurationChangeError: it cannot be done; the text says why.
        """
        match do:
            case "state":
                return self.state()
            case "show":
                text = self._file.text()
                return {"text": text, "digest": digest_of(text), **self.state()}
            case "check":
                return await self._checked(_text_of(request))
            case "apply":
                return await self._apply(_text_of(request), str(request.get("digest", "")), who, note)
            case "confirm":
                return await self._confirm(who, note, forced=request.get("force") is True)
            case "revert":
                await self._revert(who, "asked for", note)
                return self.state()
            case _:
                raise ConfigurationChangeError(
                    f"configuration: got {do!r}; allowed: show, state, check, apply, confirm, revert"
                )

    def state(self) -> dict[str, Any]:
        """Whether one is on trial, for how long yet, and what a confirmation waits for."""
        trial = self._file.trial()
        found: dict[str, Any] = {
            "can_be_written": self._file.can_be_written,
            "restarting": self._going,
            "trial": None,
        }
        if trial is not None:
            found["trial"] = {
                "given_by": trial.given_by,
                "applied_at": trial.applied_at,
                "seconds_left": max(0, round(self._ends_at - self._clock.monotonic())),
                "waits_for": self._lost(trial.connected_before),
            }
        return found

    async def run(self, note: Note) -> None:
        """Take a configuration that is on trial back when its time is over; until cancelled."""
        while self._file.trial() is not None and not self._going:
            if self._clock.monotonic() >= self._ends_at:
                trial = self._file.trial()
                lost = self._lost(trial.connected_before) if trial is not None else []
                reason = f"not confirmed within {self._trial_s:g} s"
                if lost:
                    reason += f"; not connected again: {', '.join(lost)}"
                await self._revert("the concentrator itself", reason, note)
                break
            await asyncio.sleep(_LOOK_INTERVAL_S)
        await asyncio.Event().wait()

    async def _checked(self, text: str) -> dict[str, Any]:
        before = self._file.text()
        mistakes = await asyncio.to_thread(mistakes_of, text, self._file.path.name)
        return {
            "mistakes": [{"line": one.line, "words": one.words} for one in mistakes],
            "difference": difference(before, text),
            "digest": digest_of(before),
        }

    async def _apply(self, text: str, digest: str, who: str, note: Note) -> dict[str, Any]:
        if self._going:
            raise ConfigurationChangeError("the service is about to start anew: wait a moment")
        if digest and digest != digest_of(self._file.text()):
            raise ConfigurationChangeError(
                "the configuration was changed by somebody else since: load the page again, and compare"
            )
        found = await self._checked(text)
        if found["mistakes"]:
            return {**found, "applied": False}
        if not found["difference"]:
            raise ConfigurationChangeError("nothing differs from the configuration that is in force")
        self._file.apply(text, who, self._connected(), self._clock.now())
        changed = [line for line in found["difference"] if line[:1] in ("+", "-")]
        log.warning("configuration on trial", by=who, lines=len(changed))
        await note("configuration_apply", who, "done", f"{len(changed)} lines differ; on trial")
        self._start_anew()
        return {**found, "applied": True}

    async def _confirm(self, who: str, note: Note, *, forced: bool) -> dict[str, Any]:
        trial = self._file.trial()
        if trial is None or self._going:
            raise ConfigurationChangeError("no configuration is on trial")
        lost = self._lost(trial.connected_before)
        if lost and not forced:
            raise ConfigurationChangeError(
                f"not confirmed: was connected before, and is not: {', '.join(lost)}"
            )
        self._file.confirm()
        log.warning("configuration confirmed", by=who)
        await note("configuration_confirm", who, "done", "")
        return self.state()

    async def _revert(self, who: str, reason: str, note: Note) -> None:
        if self._going:
            raise ConfigurationChangeError("the service is about to start anew: wait a moment")
        self._file.revert()
        log.warning("configuration taken back", by=who, reason=reason)
        await note("configuration_revert", who, "done", reason)
        self._start_anew()

    def _lost(self, before: Collection[str]) -> list[str]:
        """Those that a confirmation waits for: all that were connected before, and stand in the configuration still."""
        if not before:
            return []
        connected = set(self._connected())
        wanted = set(before).intersection(self._destinations())
        # Where all of them were taken out of the configuration, any other will do.
        if not wanted:
            return [] if connected or not self._destinations() else sorted(self._destinations())
        return sorted(wanted - connected)

    def _start_anew(self) -> None:
        self._going = True
        asyncio.get_running_loop().call_later(_RESTART_DELAY_S, self._restart)


def _text_of(request: Mapping[str, Any]) -> str:
    text = request.get("text")
    if not isinstance(text, str) or len(text.encode("utf-8", "surrogatepass")) > LARGEST_OCTETS:
        raise ConfigurationChangeError(f"configuration: text of at most {LARGEST_OCTETS} octets is expected")
    return text.replace("\r\n", "\n")
