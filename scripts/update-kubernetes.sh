#!/usr/bin/env bash
# Pins the Kubernetes libraries to one version: update-kubernetes.sh v1.36.3
#
# k8s.io/kubernetes asks for its staging modules at v0.0.0 and replaces them with
# folders of its own tree; whoever imports it has to replace them too. The list is
# read from the go.mod of that very version, so none is ever missing or left over.
# test/upstream and test/upstream/suite are modules of their own, and a module's replaces
# hold for itself only: they get the same lines.
set -euo pipefail
cd "$(dirname "$0")/.."
version=${1:?usage: update-kubernetes.sh v1.MINOR.PATCH}
staging=v0${version#v1}

gomod=$(go mod download -json "k8s.io/kubernetes@$version" | sed -n 's/^\t"GoMod": "\(.*\)",\?$/\1/p')
modules=$(sed -n 's#^\t\(k8s.io/[a-z-]*\) => ./staging.*#\1#p' "$gomod")

# The root first: test/upstream requires it.
for dir in . test/upstream test/upstream/suite; do
	edits=(-require "k8s.io/kubernetes@$version")
	for module in $(sed -nE 's#^(\t|replace )(k8s.io/[a-z-]*) => .*#\2#p' "$dir/go.mod"); do
		edits+=(-dropreplace "$module")
	done
	for module in $modules; do
		edits+=(-replace "$module=$module@$staging")
	done
	(cd "$dir" && go mod edit "${edits[@]}" && go mod tidy)
done
