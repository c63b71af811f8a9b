#!/usr/bin/env bash
# What `make up` does after building: starts everynode, gives it the image of the
# first example where no registry can be reached, applies the example, and waits
# until it runs on every node. Run again, it changes nothing and says so.
set -euo pipefail
cd "$(dirname "$0")/.."

data=${DATA_DIR:-/var/lib/everynode}
image=docker.io/prom/node-exporter:v1.5.0
archive=$data/images/node-exporter-v1.5.0.tar
everynode=$PWD/bin/everynode
kubectl() { "$everynode" kubectl --data-dir "$data" "$@"; }
say() { printf '\n%s\n' "$*"; }

if [ "$(id -u)" != 0 ]; then
	echo "make up: needs root (it starts containers): sudo make up" >&2
	exit 1
fi

registry_reachable() {
	curl --silent --output /dev/null --max-time 3 "https://${image%%/*}/"
}

# An archive in the images folder is imported when the agent starts.
if [ ! -e "$archive" ] && ! registry_reachable; then
	echo "no registry can be reached: assembling $image from Debian's prometheus-node-exporter"
	mkdir -p "$(dirname "$archive")"
	go run ./tools/debimage -name "$image" -package prometheus-node-exporter \
		-link /bin/node_exporter=/usr/bin/prometheus-node-exporter -entrypoint /bin/node_exporter -o "$archive"
fi

"$everynode" up --data-dir "$data"

say "Applying examples/node-exporter.yaml"
applied=$(kubectl apply -f examples/node-exporter.yaml)
echo "$applied"
kubectl -n monitoring rollout status daemonset/node-exporter --timeout=120s
kubectl -n monitoring get daemonset node-exporter

if ! grep -qvE ' unchanged$' <<<"$applied"; then
	say "Nothing to change: node-exporter already runs on every node."
fi
cat <<TEXT

Try next:
  curl 127.0.0.1:9100/metrics
  bin/everynode kubectl get ds,pods,nodes -A -o wide
  bin/everynode kubectl -n monitoring logs ds/node-exporter
  bin/everynode kubectl apply -f examples/fluentd.yaml
  sudo make down        stops everything; the data stays
TEXT
