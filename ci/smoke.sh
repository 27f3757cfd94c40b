#!/usr/bin/env bash
# What a user tries first, with the real program: the demo on a few files, which compares everything that arrives with what it must
# be and exits with an error otherwise, and a benchmark that only shows that it works. Its figures mean nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/common.sh

cargo build --locked --release -p doorbell-cli
doorbell="$CARGO_TARGET_DIR/release/doorbell"

# Names of sockets have little room: not below a long directory.
place="$(mktemp -d /tmp/doorbell-smoke.XXXXXX)"
trap 'rm -rf "$place"' EXIT
mkdir "$place/run" "$place/tree"
chmod 700 "$place/run"
export DOORBELL_RUNTIME_DIR="$place/run"
cp -r docs crates/doorbell-proto/src "$place/tree"

timeout 120 "$doorbell" demo "$place/tree" --work 10

timeout 120 "$doorbell" bench rtt --quick --json >"$place/rows"
grep -q '^{.*}$' "$place/rows" || { echo "the benchmark printed no row"; exit 1; }
echo "$(wc -l <"$place/rows") rows measured"

left="$(find "$place/run" -type s)"
[ -z "$left" ] || { echo "sockets are left over: $left"; exit 1; }
