"""The history of a network as JSON values, for commands, orders and the page."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from concentrator.collection.topology import NodeHistory, Topology
from concentrator.store.network_history import NetworkHour

_HOURS = 7 * 24
_CHANGES = 20


def network_view(topology: Topology, names: Mapping[str, str]) -> dict[str, Any]:
    """Every node with its place and its last changes, and the network's hours (G01). `names` are meters by EUI."""
    nodes = sorted(topology.nodes(), key=lambda node: node.eui)
    return {
        "nodes": [_node(node, names) for node in nodes],
        "hours": [_hour(hour) for hour in topology.network_hours()[-_HOURS:]],
    }


def places_view(topology: Topology, names: Mapping[str, str]) -> dict[str, Any]:
    """Every node with its place, without what became of it: small enough to be asked for again and again."""
    nodes = sorted(topology.nodes(), key=lambda node: node.eui)
    return {"nodes": [_place(node, names) for node in nodes]}


def node_view(topology: Topology, eui: bytes, names: Mapping[str, str]) -> dict[str, Any]:
    """One node with everything that is kept of it: all changes, and its days (G02)."""
    node = topology.node(eui)
    if node is None:
        return {"eui": eui.hex(), "meter": names.get(eui.hex(), ""), "known": False}
    return {
        **_node(node, names),
        "known": True,
        "changes": [_change(change.at, change.what, change.why) for change in node.changes],
        "days": [
            {
                "start": day.start,
                "available_minutes": round(day.available_minutes, 1),
                "changes": day.changes,
                "up_minutes": round(day.up_minutes, 1),
                "percent": round(day.percent, 1),
            }
            for day in topology.node_days(eui)
        ],
        "children": sorted(child.eui.hex() for child in topology.children(eui)),
    }


def _node(node: NodeHistory, names: Mapping[str, str]) -> dict[str, Any]:
    changes = [_change(change.at, change.what, change.why) for change in list(node.changes)[-_CHANGES:]]
    return {**_place(node, names), "changes": changes}


def _place(node: NodeHistory, names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "eui": node.eui.hex(),
        "meter": names.get(node.eui.hex(), ""),
        "available": node.available,
        "since": _iso(node.since),
        "address": node.address,
        "parent": node.parent.hex() if node.parent is not None else "",
        "level": node.level,
        "hops": node.hops,
        "role": node.role,
        "quality": node.quality,
        "reverse_quality": node.reverse_quality,
        "modulation": node.modulation,
        "media": node.media,
    }


def _change(at: float, what: str, why: str) -> dict[str, str | None]:
    return {"at": _iso(at), "what": what, "why": why}


def _hour(hour: NetworkHour) -> dict[str, Any]:
    return {
        "start": hour.start,
        "mean": round(hour.mean, 2),
        "lowest": hour.lowest,
        "highest": hour.highest,
        "total": hour.total,
        "percent": round(hour.percent, 1),
        "up_minutes": round(hour.up_minutes, 1),
    }


def _iso(at: float) -> str | None:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds") if at else None


def as_tree(view: Mapping[str, Any]) -> list[str]:
    """A network's view as lines: each node below the one that it hangs under, those that are away at the end."""
    nodes: list[dict[str, Any]] = list(view["nodes"])
    present = {node["eui"]: node for node in nodes if node["available"]}
    children: dict[str, list[dict[str, Any]]] = {}
    for node in present.values():
        parent = node["parent"] if node["parent"] in present else ""
        children.setdefault(parent, []).append(node)
    lines: list[str] = []

    def walk(parent: str, depth: int, seen: frozenset[str]) -> None:
        for node in children.get(parent, []):
            lines.append("  " * depth + _line(node))
            if node["eui"] not in seen:
                walk(node["eui"], depth + 1, seen | {node["eui"]})

    walk("", 0, frozenset())
    # A route that runs in a circle hangs nowhere.
    told = "\n".join(lines)
    lines += [
        _line(node) + " (its route runs in a circle)" for node in present.values() if node["eui"] not in told
    ]
    away = [node for node in nodes if not node["available"]]
    if away:
        lines.append("away:")
    for node in away:
        why = next((change for change in reversed(node["changes"]) if change["what"] == "left"), None)
        reason = f": {why['why']}" if why else ""
        lines.append(f"  {node['meter'] or node['eui']} since {node['since']}{reason}")
    return lines


def _line(node: Mapping[str, Any]) -> str:
    facts = [f"{name} {node[name]}" for name in ("level", "hops", "quality") if node[name] is not None]
    facts += [str(node[name]) for name in ("role", "modulation", "media") if node[name]]
    name = node["meter"] or node["eui"]
    return f"{name} [{node['eui']}] " + ", ".join(facts)


def hours_as_lines(view: Mapping[str, Any]) -> list[str]:
    """The last day of the network, hour by hour (G01)."""
    hours: list[dict[str, Any]] = list(view["hours"])[-24:]
    if not hours:
        return []
    lines = ["hour               available  mean   lowest  highest  known"]
    for hour in hours:
        start = datetime.fromtimestamp(hour["start"], UTC).strftime("%Y-%m-%d %H:%MZ")
        lines.append(
            f"{start}  {hour['percent']:8.1f} %  {hour['mean']:5.1f}  {hour['lowest']:6}  {hour['highest']:7}"
            f"  {hour['total']:5}"
        )
    return lines


def node_as_lines(view: Mapping[str, Any]) -> list[str]:
    """One node: where it hangs, what became of it, and its days (G02)."""
    if not view["known"]:
        return [f"{view['meter'] or view['eui']}: nothing is known of its place yet"]
    lines = [
        _line(view),
        f"hangs under {view['parent'] or 'the modem'}; {len(view['children'])} hang under it",
    ]
    lines += [f"{change['at']}  {change['what']:7} {change['why']}" for change in view["changes"]]
    for day in view["days"]:
        start = datetime.fromtimestamp(day["start"], UTC).strftime("%Y-%m-%d")
        lines.append(
            f"{start}  {day['percent']:5.1f} %  {day['available_minutes']:7.1f} min of {day['up_minutes']:7.1f},"
            f" {day['changes']} changes"
        )
    return lines
