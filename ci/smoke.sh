#!/usr/bin/env bash
# What a user tries first, with the real program: the demo on a few files, which compares everything that arrives with what it must
# be and exits with an error otherwise; a benchmark that only shows that it works (its figures mean nothing); an echo server; the examples.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/common.sh

cargo build --locked --release -p doorbell-cli
doorbell="$CARGO_TARGET_DIR/release/doorbell"

# What users get has none of the places at which ci/crash.sh ends a process.
if grep -q DOORBELL_FAILPOINT "$doorbell"; then
    echo "failpoints are in the ordinary build"
    exit 1
fi

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

# A server, somebody who finds it, and somebody who looks for another one.
"$doorbell" serve --echo smoke >"$place/served" &
server=$!
for _ in $(seq 100); do [ -S "$place/run/smoke.sock" ] && break; sleep 0.1; done
timeout 20 "$doorbell" ping smoke --count 3 --interval 1
if timeout 20 "$doorbell" ping nobody 2>"$place/error"; then
    echo "a server that does not exist has answered"
    exit 1
fi
grep -q 'no server is listening' "$place/error" || { cat "$place/error"; exit 1; }
kill -INT "$server"
wait "$server"

left="$(find "$place/run" -type s)"
[ -z "$left" ] || { echo "sockets are left over: $left"; exit 1; }

# The examples that a new user copies. The editor kills its engine, whose socket then waits for the next one to replace it.
cargo build --locked --workspace --all-features --examples
timeout 60 "$CARGO_TARGET_DIR/debug/examples/editor" "$place/tree"
