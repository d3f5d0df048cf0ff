"""`concentrator users`: the accounts of the page, for root and the service's user on the box.

Passwords come from standard input or are made here: never from the command line, where every process could read them.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from concentrator.access.account_desk import AccountDesk, told_token
from concentrator.access.errors import UserError
from concentrator.access.roles import Role
from concentrator.access.sessions import Sessions
from concentrator.access.tokens import LONGEST_DAYS, TokenBook
from concentrator.access.users import UserBook
from concentrator.clock import SystemClock
from concentrator.command_options import CONFIG_OPTION
from concentrator.config import Config, load_config
from concentrator.control import ServiceAbsentError, request
from concentrator.orders import LOCAL
from concentrator.store.audit import AuditEntry, add
from concentrator.store.database import connect
from concentrator.store.errors import StoreError

_ROLE = click.Choice([role.value for role in Role])
_STDIN_OPTION = click.option(
    "--password-stdin", is_flag=True, help="Read the password from standard input; else one is made."
)


@click.group()
def users() -> None:
    """The accounts of the page: viewer, operator, admin."""


@users.command("list")
@CONFIG_OPTION
def list_users(config_file: Path) -> None:
    """List them with their roles."""
    for user in UserBook(load_config(config_file, ports_exist=False).state_directory).users():
        one_time = "  one-time password, not changed yet" if user.one_time else ""
        click.echo(f"{user.name:32} {user.role}{one_time}")


@users.command("add")
@CONFIG_OPTION
@click.option("--role", type=_ROLE, default=Role.VIEWER.value, show_default=True)
@_STDIN_OPTION
@click.argument("name")
def add_user(config_file: Path, role: str, name: str, *, password_stdin: bool) -> None:
    """Make an account; without a password on standard input a one-time one is made and printed."""
    _tell(name, _change(config_file, "add", name=name, role=role, new=_password(given=password_stdin)))


@users.command("reset")
@CONFIG_OPTION
@_STDIN_OPTION
@click.argument("name")
def reset_user(config_file: Path, name: str, *, password_stdin: bool) -> None:
    """Give somebody another password; ends their sessions and tokens, and unlocks the name."""
    _tell(name, _change(config_file, "reset", name=name, new=_password(given=password_stdin)))


@users.command("role")
@CONFIG_OPTION
@click.argument("name")
@click.argument("role", type=_ROLE)
def change_role(config_file: Path, name: str, role: str) -> None:
    """Give somebody another role; ends their sessions."""
    _change(config_file, "role", name=name, role=role)
    click.echo(f"{name} is {role} now.")


@users.command("remove")
@CONFIG_OPTION
@click.argument("name")
def remove_user(config_file: Path, name: str) -> None:
    """Remove an account; ends its sessions."""
    _change(config_file, "remove", name=name)
    click.echo(f"{name} is removed.")


@users.group()
def token() -> None:
    """Tokens of programs: sent as `Authorization: Bearer TOKEN`, in the name of an account."""


@token.command("add")
@CONFIG_OPTION
@click.argument("name")
@click.option("--for", "label", required=True, help="What it is for: the name of the program, for instance.")
@click.option(
    "--days", type=click.IntRange(1, LONGEST_DAYS), help="It ends after so many days; else it has no end."
)
@click.option("--role", type=_ROLE, help="A lesser role than the account's.")
def add_token(config_file: Path, name: str, label: str, days: int | None, role: str | None) -> None:
    """Make a token of the account NAME; it is printed once, and kept nowhere."""
    asked: dict[str, object] = {"name": name, "label": label, "role": role or "", "days": days}
    click.echo(_change(config_file, "token_add", **asked)["token"])


@token.command("list")
@CONFIG_OPTION
def list_tokens(config_file: Path) -> None:
    """List them; none is shown itself."""
    folder = load_config(config_file, ports_exist=False).state_directory
    for one in TokenBook(UserBook(folder), SystemClock(), folder).tokens():
        told = told_token(one)
        until = f"until {told['ends_at']}" if told["ends_at"] else "without an end"
        used = f"last used {told['used_on'][:10]}" if told["used_on"] else "never used"
        click.echo(f"{one.identity}  {one.user:20} {one.role:9} {until}, {used}  {one.label}")


@token.command("remove")
@CONFIG_OPTION
@click.argument("identity")
def remove_token(config_file: Path, identity: str) -> None:
    """Remove a token by the identity that `list` shows: it opens nothing any more."""
    _change(config_file, "token_remove", id=identity)
    click.echo(f"{identity} is removed.")


def _change(config_file: Path, do: str, **asked: object) -> dict[str, Any]:
    """Have the service change accounts or tokens, or do it here while none runs; gives what was made."""
    config = load_config(config_file, ports_exist=False)
    try:
        answer = asyncio.run(request(config.control_socket, {"op": "users", "do": do, **asked}))
    except ServiceAbsentError:
        return asyncio.run(_change_here(config, do, asked))
    if "refused" in answer:
        raise UserError(str(answer["reason"]))
    return answer


async def _change_here(config: Config, do: str, asked: Mapping[str, object]) -> dict[str, Any]:
    async def note(operation: str, _who: str, _state: str, detail: str) -> None:
        _note(config, operation, detail)

    folder, clock = config.state_directory, SystemClock()
    book = UserBook(folder)
    sessions = Sessions(book, clock, folder, idle_s=0.0, longest_s=float("inf"))
    desk = AccountDesk(book, sessions, TokenBook(book, clock, folder))
    return await desk.answer(do, asked, LOCAL, "", note)


def _password(*, given: bool) -> str:
    if not given:
        return ""
    password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise UserError("password: a line on standard input is expected")
    return password


def _tell(name: str, answer: Mapping[str, Any]) -> None:
    if made := answer.get("one_time_password"):
        click.echo(f"One-time password of {name}, to be changed at the first login: {made}")
    else:
        click.echo(f"{name} has the password that was given.")


def _note(config: Config, operation: str, detail: str) -> None:
    """Into the audit trail, where there is a store yet."""
    if not config.store_file.exists():
        return
    now = datetime.now(UTC)
    entry = AuditEntry(
        f"cli-{now:%Y%m%dT%H%M%S%f}",
        operation,
        "",
        LOCAL,
        now,
        state="done",
        detail=detail,
        completed_at=now,
    )
    try:
        connection = connect(config.store_file, query_only=False)
        try:
            with connection:
                add(connection, entry)
        finally:
            connection.close()
    except StoreError as error:
        click.echo(f"not in the audit trail: {error}", err=True)
