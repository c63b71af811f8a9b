#!/usr/bin/env bash
# Installs what everynode needs on a node and is not there yet, from Debian's packages; with the
# argument "test", what its tests need too.
set -euo pipefail

missing=()
need() { # PACKAGE PATH...: the package is there when any of the paths is
	local package=$1 path
	shift
	for path; do
		if [ -e "$path" ] || command -v "$path" >/dev/null; then return; fi
	done
	missing+=("$package")
}
need containerd containerd
need runc runc
need containernetworking-plugins /usr/lib/cni/bridge /opt/cni/bin/bridge
need iptables iptables
need iproute2 ip
need curl curl
need ca-certificates /etc/ssl/certs/ca-certificates.crt
if [ "${1:-}" = test ]; then
	need systemd /lib/systemd/systemd # the services' tests run one in namespaces of their own
	need dbus dbus-daemon # shutdown is tested with a login manager
	need util-linux nsenter
fi

[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ]; then
	echo "packages: ${missing[*]} missing; run as root (sudo make …) to install them" >&2
	exit 1
fi
if ! command -v apt-get >/dev/null; then
	echo "packages: ${missing[*]} missing, and this is no Debian: install them with your package manager" >&2
	exit 1
fi
echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
	tail -20 "$log" >&2
	echo "packages: apt-get could not install ${missing[*]}" >&2
	exit 1
fi
