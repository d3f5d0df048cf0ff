"""What the program offers is told in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import click

from concentrator.cli import main
from concentrator.uplink.messages import Topics

ROOT = Path(__file__).parents[2]
PAGES = "\n".join(page.read_text() for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])


def verbs(group: click.Group, prefix: str = "concentrator"):
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from verbs(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}"


def test_every_verb_is_told():
    # `a b c|d` in a text tells of `a b c` and `a b d`.
    told = PAGES
    for whole, head, choices in re.findall(r"(`?(concentrator [a-z]+ )([a-z]+(?:\|[a-z]+)+))", PAGES):
        assert whole
        told += "".join(f" {head}{choice}" for choice in choices.split("|"))
    missing = [
        verb
        for verb in verbs(main)
        if verb not in told and verb.replace("concentrator demo", "make demo") not in told
    ]
    assert not missing


def test_every_make_verb_is_told_by_help():
    text = (ROOT / "Makefile").read_text()
    told = set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE))
    assert {
        "demo",
        "test",
        "check",
        "bench",
        "install",
        "screenshots",
        "format",
        "lock",
        "clean",
        "help",
    } <= told


def test_every_topic_is_told():
    topics = Topics("S", "D")
    for topic in (
        topics.status,
        topics.health,
        topics.meters,
        topics.meters_page(1),
        topics.update,
        topics.meter("METER", "latest"),
        topics.meter("METER", "event"),
        topics.meter("METER", "reading"),
        topics.meter("METER", "register"),
        topics.command,
        topics.result("ID"),
    ):
        assert f"`{topic}`" in PAGES


def test_links_between_pages_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
