#!/bin/sh
# Assembles the pause process for both architectures; needs binutils and
# binutils-aarch64-linux-gnu. The results are committed: 500 bytes that rarely change.
set -eu
cd "$(dirname "$0")"
make_one() { # arch, prefix of the tools
	object=$(mktemp)
	"$2as" -o "$object" "pause_$1.S"
	"$2ld" -s -n --build-id=none -z noseparate-code -o "pause_$1" "$object"
	rm "$object"
}
make_one amd64 "${AMD64_TOOLS-}"
make_one arm64 "${ARM64_TOOLS-aarch64-linux-gnu-}"
