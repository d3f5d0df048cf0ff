"""Finds what the MicroPython subset bans, by the lists of docs/micropython.md.

As a program it checks plc/ and board/ (but for board/linux.py), and ends with status 1 when it finds something.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "micropython.md"


def listed(name: str, document: Path = DOCUMENT) -> list[str]:
    """The lines of one list of the document."""
    lists = re.findall(rf"```{name}\n(.*?)```", document.read_text(), re.DOTALL)
    return [line for text in lists for line in text.splitlines() if line]


def banned(kind: str) -> list[str]:
    """The lines of one list of what is banned."""
    return listed(f"banned-{kind}")


def _is_type_alias(node: ast.AST) -> bool:
    return type(node).__name__ == "TypeAlias" or bool(getattr(node, "type_params", None))


SYNTAX: dict[str, Callable[[ast.AST], bool]] = {
    "match statement": lambda node: isinstance(node, ast.Match),
    "positional-only parameter": lambda node: isinstance(node, ast.arguments) and bool(node.posonlyargs),
    "except*": lambda node: isinstance(node, ast.TryStar),
    "parenthesised with of several items": lambda node: isinstance(node, ast.With) and len(node.items) > 1,
    "asynchronous comprehension": lambda node: isinstance(node, ast.comprehension) and bool(node.is_async),
    "metaclass or class keyword": lambda node: isinstance(node, ast.ClassDef) and bool(node.keywords),
    "starred item in a tuple, list or set": lambda node: (
        isinstance(node, ast.Tuple | ast.List | ast.Set)
        and not isinstance(getattr(node, "ctx", None), ast.Store)
        and any(isinstance(item, ast.Starred) for item in node.elts)
    ),
    "double-starred item in a dict": lambda node: isinstance(node, ast.Dict) and None in node.keys,
    "slice with a step": lambda node: isinstance(node, ast.Slice) and node.step is not None,
    "deletion of a slice": lambda node: (
        isinstance(node, ast.Delete)
        and any(
            isinstance(item, ast.Subscript) and isinstance(item.slice, ast.Slice) for item in node.targets
        )
    ),
    "exception chaining": lambda node: isinstance(node, ast.Raise) and node.cause is not None,
    "type alias or type parameter": _is_type_alias,
}


def _catches_import_error(node: ast.Try) -> bool:
    return any(
        isinstance(handler.type, ast.Name) and handler.type.id == "ImportError" for handler in node.handlers
    )


def _guarded(tree: ast.Module) -> set[ast.AST]:
    """Every node that only a type checker sees, or that a missing module does not harm."""
    guarded: set[ast.AST] = set()
    for statement in tree.body:
        blocks: list[ast.stmt] = []
        if isinstance(statement, ast.If) and isinstance(statement.test, ast.Name):
            if statement.test.id == "TYPE_CHECKING":
                blocks = statement.body
        elif isinstance(statement, ast.Try) and _catches_import_error(statement):
            blocks = statement.body
        for block in blocks:
            guarded.update(ast.walk(block))
    return guarded


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return []


def violations(source: str, name: str) -> Iterator[str]:
    """Say each use of something banned in one module, as file:line: what."""
    tree = ast.parse(source)
    guarded = _guarded(tree)
    allowed_imports = listed("allowed-imports")
    imports, names, arguments, syntax = (banned(kind) for kind in ("imports", "names", "arguments", "syntax"))
    for node in ast.walk(tree):
        if node in guarded:
            continue
        where = f"{name}:{getattr(node, 'lineno', '?')}"
        for module in _imported(node):
            if module.split(".")[0] not in (*allowed_imports, "plc", "board"):
                yield f"{where}: import of {module}, which the list of allowed imports has not"
            if any(module == entry or module.startswith(entry + ".") for entry in imports):
                yield f"{where}: import of {module}"
        if isinstance(node, ast.Attribute) and node.attr in names:
            yield f"{where}: {node.attr}"
        if isinstance(node, ast.FunctionDef) and node.name in names:
            yield f"{where}: {node.name}"
        if isinstance(node, ast.Call):
            yield from (
                f"{where}: argument {keyword.arg}" for keyword in node.keywords if keyword.arg in arguments
            )
        yield from (f"{where}: {entry}" for entry in syntax if SYNTAX[entry](node))


def modules() -> list[Path]:
    """The modules that have to keep to the subset."""
    found = [path for folder in ("plc", "board") for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in found if path != ROOT / "board" / "linux.py"]


def main() -> int:
    """Check every module; returns the exit status."""
    found = [line for path in modules() for line in violations(path.read_text(), str(path.relative_to(ROOT)))]
    for line in found:
        sys.stderr.write(f"not in the MicroPython subset (docs/micropython.md): {line}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
