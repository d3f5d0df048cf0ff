#!/usr/bin/env bash
# Installs the Debian packages that the tests need when root; names them when not.
set -euo pipefail

declare -A package_of=(
    [mosquitto]=mosquitto
    [chromium]=chromium
    [rauc]=rauc
    [dbus-run-session]=dbus
    [mksquashfs]=squashfs-tools
    [openssl]=openssl
    [node]=nodejs
    [npm]=npm
    [sshd]=openssh-server
)
# Its programs are in folders of their versions, not on the path.
compgen -G "/usr/lib/postgresql/*/bin/postgres" > /dev/null && unset "package_of[postgres]" || package_of[postgres]=postgresql
missing=()
for command in "${!package_of[@]}"; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "$command" > /dev/null || missing+=("${package_of[$command]}")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ]; then
    echo "The tests need these Debian packages: ${missing[*]}"
    echo "Install them as root, then run make test again:  apt-get install ${missing[*]}"
    exit 1
fi
echo "installing Debian packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
