"""The nodes of the network as SVG: put together here, as a template takes a tenth of a second for thousands."""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import Markup, escape

from concentrator.web.topology import Mark, Picture, Place
from concentrator.web.translations import Translate

# Further ones look the same.
MOST_DISTANCES = 6


def marks_svg(picture: Picture, translate: Translate, *, by_hops: bool) -> Markup:
    """All nodes: links with their words, coloured by how good the way to them is, or by how many hops away they are."""
    words: dict[str, str] = {}

    def said(text: str) -> str:
        if text not in words:
            words[text] = translate(text)
        return words[text]

    def pieces() -> Iterator[str]:
        for mark in picture.marks:
            place = mark.place
            kind = _distance_class(place) if by_hops else place.tone
            yield (
                f'<a href="/topology/{escape(place.eui)}" tabindex="-1">'
                f"<title>{escape(_words(mark, said))}</title>{_shape(mark, kind)}"
            )
            if mark.named:
                yield f'<text x="{mark.x + 12:g}" y="{mark.y + 4:g}">{escape(place.name)}'
                if mark.below:
                    yield f' <tspan class="count">{"+ " if mark.folded else ""}{mark.below}</tspan>'
                yield "</text>"
            yield "</a>"

    return Markup("".join(pieces()))  # noqa: S704 - every text in it is escaped


def _distance_class(place: Place) -> str:
    return f"d{min(place.distance, MOST_DISTANCES)}" if place.distance is not None else "busy"


def _shape(mark: Mark, kind: str) -> str:
    if "rf" in mark.place.media.lower():
        return f'<path class="mark {kind}" d="M{mark.x:g} {mark.y - 7:g}l7 7l-7 7l-7 -7z"/>'
    return f'<circle class="mark {kind}" cx="{mark.x:g}" cy="{mark.y:g}" r="{6.5 if mark.below else 5}"/>'


def _words(mark: Mark, translate: Translate) -> str:
    place = mark.place
    words = f"{place.name}: {translate('link')} {translate(place.link_words)}"
    if place.quality is not None:
        words += f" ({place.quality})"
    if place.hops:
        words += f", {translate('hops')} {place.hops}"
    if place.level is not None:
        words += f", {translate('level')} {place.level}"
    if place.media:
        words += f", {place.media}"
    if mark.below:
        words += f", {mark.below} {translate('below')}"
    return words
