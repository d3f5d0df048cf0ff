#!/usr/bin/env bash
# Installs the concentrator below DESTDIR: /opt/concentrator with its locked dependencies, the units, the
# users' and directories' rules, and a first configuration. Without DESTDIR it installs into this system.
#
# There is no virtual environment on the target, as one cannot be moved: dependencies lie in lib/, and
# bin/concentrator finds them beside itself. They are built for PYTHON on this machine: install on the
# target, or on a machine of the same architecture and the same version of Python.
set -euo pipefail
umask 022

destdir="${1:-}"
destdir="${destdir%/}"
here="$(cd "$(dirname "$0")/.." && pwd)"
python="$(command -v "${PYTHON:-python3}")" || { echo "no Python: set PYTHON=..." >&2; exit 1; }
uv="${UV:-$here/.venv/bin/uv}"
prefix="$destdir/opt/concentrator"
units="$destdir/usr/lib/systemd/system"
etc="$destdir/etc/concentrator"

if [ -z "$destdir" ] && [ "$(id -u)" -ne 0 ]; then
    echo "Installing into this system needs root; or give a directory: make install DESTDIR=..." >&2
    exit 1
fi
[ -x "$uv" ] || { echo "no $uv: run this through make install" >&2; exit 1; }

# A fresh tree beside the old one, then a swap: an interrupted installation leaves what was there.
mkdir -p "$destdir/opt"
staged="$(mktemp -d "$destdir/opt/.concentrator.XXXXXX")"
trap 'rm -rf "$staged"' EXIT
chmod 755 "$staged"
mkdir -p "$staged/bin" "$staged/lib" "$staged/share"
unset VIRTUAL_ENV UV_PYTHON
"$uv" pip install --quiet --python "$python" --target "$staged/lib" --require-hashes \
    -r "$here/.requirements/run.txt"
"$uv" pip install --quiet --python "$python" --target "$staged/lib" --no-deps "$here"
rm -rf "$staged/lib/bin"
cp -R "$here/docs" "$staged/share/docs"
cp "$here/LICENSE" "$staged/share/"

cat > "$staged/bin/concentrator" << EOF
#!$python -I
"""Starts the concentrator with the libraries that were installed beside it."""

import pathlib
import sys

BUILT_FOR = "$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"

if "%d.%d" % sys.version_info[:2] != BUILT_FOR:
    sys.exit(f"this concentrator was installed for Python {BUILT_FOR}; this is {sys.version.split()[0]}")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

from concentrator.cli import main

sys.exit(main())
EOF
chmod 755 "$staged/bin/concentrator"
"$python" -m compileall -q -s "$destdir" "$staged/lib" > /dev/null

if [ -e "$prefix" ]; then
    mv "$prefix" "$staged.old"
fi
mv "$staged" "$prefix"
rm -rf "$staged.old"

for unit in concentrator.service concentrator-web.service; do
    install -D -m 644 "$here/systemd/$unit" "$units/$unit"
done
install -D -m 644 "$here/systemd/concentrator.sysusers" "$destdir/usr/lib/sysusers.d/concentrator.conf"
install -D -m 644 "$here/systemd/concentrator.tmpfiles" "$destdir/usr/lib/tmpfiles.d/concentrator.conf"

mkdir -p "$etc"
"$prefix/bin/concentrator" config example > "$etc/concentrator.toml.example"
if [ ! -e "$etc/concentrator.toml" ]; then
    install -m 640 "$etc/concentrator.toml.example" "$etc/concentrator.toml"
fi

if [ -z "$destdir" ] && [ -d /run/systemd/system ]; then
    systemd-sysusers concentrator.conf
    systemd-tmpfiles --create concentrator.conf
    systemctl daemon-reload
    echo "Installed. Edit /etc/concentrator/concentrator.toml, then:"
    echo "  systemctl enable --now concentrator concentrator-web"
fi
