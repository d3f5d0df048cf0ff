"""Templates to HTML: one environment, everything escaped, the page's words as filters."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from concentrator.clock import Clock
from concentrator.web import chart, network_marks, words
from concentrator.web.chart import ChartValue
from concentrator.web.firmware_views import CAMPAIGN_STATES, METER_STAGES, SLOT_STATES, UPDATE_STATES
from concentrator.web.meters import OLD_AFTER_S
from concentrator.web.reasons import told
from concentrator.web.report_views import SCALES, SEVERITIES
from concentrator.web.task_views import TASK_KINDS
from concentrator.web.topology import Picture
from concentrator.web.translations import ENGLISH, LANGUAGES, Message, catalogue
from concentrator.web.views import Part, View

_ROOM = Path(__file__).parent
STATIC = _ROOM / "static"


class Renderer:
    """Renders pages and parts in one language; `_` in the templates is that language's catalogue."""

    def __init__(self, clock: Clock, language: str = ENGLISH) -> None:
        self._clock = clock
        self.language = language
        self._messages = messages = catalogue(language)
        self._translate = translate = messages.gettext
        self._marks: dict[bool, tuple[Picture, Markup]] = {}
        self._environment = Environment(
            loader=FileSystemLoader(_ROOM / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        filters: dict[str, Any] = {
            "age": self.age,
            "moment": functools.partial(words.moment_words, translate=translate),
            "told": self.told,
            "told_moment": self.told_moment,
            "day": functools.partial(words.day_words, translate=translate),
            "weekday": functools.partial(words.weekday_words, translate=translate),
            "told_time": told_time_words,
            "epoch_time": epoch_time_words,
            "number": words.number_words,
            "decimal": messages.decimal,
            "octets": self._octets,
            "obis_words": functools.partial(words.obis_words, translate=translate),
            "quality": functools.partial(words.quality_words, translate=translate),
            "doubtful": words.is_doubtful,
            "cursor": self.cursor,
            "marks": self.marks,
            "unit": words.unit_words,
            "event_words": functools.partial(words.event_words, translate=translate),
        }
        self._environment.filters.update(filters)
        helpers: dict[str, Any] = {
            "_": translate,
            "ngettext": messages.ngettext,
            "say": self.say,
            "script_words": {
                name: translate(message)
                for name, message in (words.AGE_MESSAGES | words.STREAM_MESSAGES).items()
            },
            "language": language,
            "languages": LANGUAGES,
            "part": self.part,
            "percent": words.percent_words,
            "scaled": self._scaled,
            "signal": words.signal_words,
            "meter_states": words.METER_STATES,
            "key_states": words.KEY_STATES,
            "media": words.MEDIA,
            "task_kinds": TASK_KINDS,
            "severity_words": SEVERITIES,
            "scales": SCALES,
            "campaign_states": CAMPAIGN_STATES,
            "meter_stages": METER_STAGES,
            "update_states": UPDATE_STATES,
            "slot_states": SLOT_STATES,
            "port_tones": words.PORT_TONES,
            "destination_tones": words.DESTINATION_TONES,
            "chart_size": chart,
            # Changed files get new addresses, so they may be kept for long.
            "files": {path.name: f"/static/{path.name}?v={_digest(path)}" for path in STATIC.iterdir()},
        }
        self._environment.globals |= helpers

    def part(self, name: str, part: Part) -> Markup:
        """One part. Its outermost element carries `data-part`, by which the script finds it."""
        text = self._environment.get_template(f"parts/{part.template}").render(name=name, data=part.data)
        return Markup(text)  # noqa: S704 - rendered by the escaping environment

    def snippet(self, template: str, **values: Any) -> str:  # noqa: ANN401 - whatever the template takes
        """A piece of a page that is no part of its own."""
        return self._environment.get_template(template).render(**values)

    def page(self, view: View, **more: Any) -> str:  # noqa: ANN401 - whatever the template takes
        """A whole page."""
        template = self._environment.get_template(view.template)
        return template.render(
            title=view.title, parts=view.parts, now=self._clock.now(), **view.fixed, **more
        )

    def plain(self, template: str, **more: Any) -> str:  # noqa: ANN401 - whatever the template takes
        """A page without live parts."""
        return self._environment.get_template(template).render(now=self._clock.now(), **more)

    def age(self, then: datetime | None) -> Markup:
        """How long ago, as a time element that the script keeps up to date."""
        if then is None:
            return Markup('<span class="muted">{}</span>').format(self._translate("never"))
        old = (self._clock.now() - then).total_seconds() > OLD_AFTER_S
        return Markup('<time datetime="{}" title="{}" data-age{}>{}</time>').format(
            then.isoformat(timespec="seconds"),
            words.moment_words(then, self._translate),
            Markup(' class="old"') if old else "",
            words.age_words(then, self._clock.now(), self._translate),
        )

    def told(self, text: str) -> str:
        """A reason that the service gave, in this language as far as it is known."""
        return told(text, self._messages)

    def say(self, said: Message | str) -> str:
        """A message with its values, or a reason that the service gave."""
        if isinstance(said, str):
            return self.told(said)
        values = {
            name: self.told(value) if isinstance(value, str) else value for name, value in said.values.items()
        }
        return self._translate(said.text, **values)

    def _octets(self, octets: float) -> str:
        return self._messages.decimal(words.octets_words(octets))

    def _scaled(self, value: float | str, scaler: int) -> str:
        return self._messages.decimal(words.scaled(value, scaler))

    def cursor(self, values: Sequence[ChartValue], unit: int) -> str:
        """What the chart's cursor says at each place from left to right, as JSON: [x, y or null, words]."""
        symbol = words.unit_words(unit)
        told: list[list[object]] = []
        for one in values:
            end = one.end if one.end.date() == one.begin.date() else one.end - timedelta(seconds=1)
            day = words.day_words(end.date(), self._translate)
            span = f"{one.begin:%H:%M}\u2013{one.end:%H:%M}" if one.begin != one.end else f"{one.end:%H:%M}"
            if one.value is None:
                said = (
                    self._translate(one.reason)
                    if one.reason
                    else self._translate("missing, still to be read")
                )
                told.append([one.x, None, f"{day} {span}: {said}"])
            else:
                value = self._messages.decimal(f"{one.value:g}")
                quality = words.quality_words(one.quality, self._translate)
                told.append([one.x, one.y, f"{day} {span}: {value} {symbol}, {quality}"])
        return json.dumps(told, ensure_ascii=False, separators=(",", ":"))

    def marks(self, picture: Picture, by_hops: bool) -> Markup:  # noqa: FBT001 - a filter's argument
        """The nodes of the network's picture. Kept for who looks next: it is the same until a node changes."""
        kept = self._marks.get(by_hops)
        if kept is None or kept[0] is not picture:
            kept = self._marks[by_hops] = (
                picture,
                network_marks.marks_svg(picture, self._translate, by_hops=by_hops),
            )
        return kept[1]

    def told_moment(self, text: str) -> str:
        """A moment that the service told, in the box's zone."""
        return words.moment_words(datetime.fromisoformat(text), self._translate)


class Renderers:
    """A renderer for each language that somebody reads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._made: dict[str, Renderer] = {}

    def of(self, language: str) -> Renderer:
        """That of one of `LANGUAGES`."""
        if language not in self._made:
            self._made[language] = Renderer(self._clock, language)
        return self._made[language]


def told_time_words(text: str) -> str:
    """The time of day of a moment that the service told, in the box's zone, to the millisecond."""
    return datetime.fromisoformat(text).astimezone().strftime("%H:%M:%S.%f")[:-3]


def epoch_time_words(seconds: int) -> str:
    """The time of day of a moment in seconds since 1970, in the box's zone."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%H:%M")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
