#!/usr/bin/env bash
# The comparison with rivals builds, and every row of it gives figures. Not part of .ci/run: building the rivals takes minutes. The
# figures of this short run mean nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/common.sh
need c++ build-essential
need_component fmt rustfmt
need_component clippy clippy

cd bench-compare
cargo fmt --check
cargo clippy --locked --all-targets -- -D warnings
cargo test --locked

results="$(mktemp -d)"
trap 'rm -rf "$results"' EXIT
cargo run --locked -- --quick --json "$results/rows.json" --report "$results/page.html"
[ -s "$results/page.html" ]
if grep -v '"error":null' "$results/rows.json"; then
    echo "these rows have failed" >&2
    exit 1
fi
