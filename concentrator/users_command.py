"""`concentrator users`: the accounts of the page, for root and the service's user on the box.

Passwords come from standard input or are made here: never from the command line, where every process could read them.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from concentrator.access.errors import UserError
from concentrator.access.roles import Role
from concentrator.access.users import UserBook
from concentrator.command_options import CONFIG_OPTION
from concentrator.config import Config, load_config
from concentrator.control import ServiceAbsentError, request
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
    _tell(name, _change(config_file, "add", name, role, _password(given=password_stdin)))


@users.command("reset")
@CONFIG_OPTION
@_STDIN_OPTION
@click.argument("name")
def reset_user(config_file: Path, name: str, *, password_stdin: bool) -> None:
    """Give somebody another password; ends their sessions, and unlocks the name."""
    _tell(name, _change(config_file, "reset", name, "", _password(given=password_stdin)))


@users.command("role")
@CONFIG_OPTION
@click.argument("name")
@click.argument("role", type=_ROLE)
def change_role(config_file: Path, name: str, role: str) -> None:
    """Give somebody another role; ends their sessions."""
    _change(config_file, "role", name, role)
    click.echo(f"{name} is {role} now.")


@users.command("remove")
@CONFIG_OPTION
@click.argument("name")
def remove_user(config_file: Path, name: str) -> None:
    """Remove an account; ends its sessions."""
    _change(config_file, "remove", name)
    click.echo(f"{name} is removed.")


def _change(config_file: Path, do: str, name: str, role: str = "", password: str = "") -> str:
    """Have the service change an account, or do it here while none runs; gives a password that was made."""
    config = load_config(config_file, ports_exist=False)
    asked = {"op": "users", "do": do, "name": name, "role": role, "new": password}
    try:
        answer = asyncio.run(request(config.control_socket, asked))
    except ServiceAbsentError:
        made = _change_here(UserBook(config.state_directory), do, name, role, password)
        _note(config, f"user_{do}", f"{name}: {role}" if role else name)
        return made
    if "refused" in answer:
        raise UserError(str(answer["reason"]))
    return str(answer.get("one_time_password", ""))


def _change_here(book: UserBook, do: str, name: str, role: str, password: str) -> str:
    if do == "add":
        return book.add(name, Role(role), password)
    if do == "reset":
        return book.reset(name, password)
    if do == "role":
        book.set_role(name, Role(role))
    else:
        book.remove(name)
    return ""


def _password(*, given: bool) -> str:
    if not given:
        return ""
    password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise UserError("password: a line on standard input is expected")
    return password


def _tell(name: str, made: str) -> None:
    if made:
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
        "the concentrator itself",
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
