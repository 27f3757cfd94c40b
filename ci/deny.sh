#!/usr/bin/env bash
# Licences, banned crates and sources of all dependencies, as deny.toml wants them; then what the library brings into a program. Not part
# of .ci/run: building cargo-deny takes minutes. Run it when Cargo.lock changes. Known vulnerabilities need the network:
# `cargo deny check advisories`.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/common.sh

version=0.20.2
tools="$CARGO_TARGET_DIR/tools"
PATH="$tools/bin:$PATH"
cargo deny --version 2>/dev/null | grep -q " $version\$" ||
    CARGO_TARGET_DIR="$tools" cargo install --locked --root "$tools" cargo-deny --version "$version"

cargo deny --locked check licenses bans sources

for features in --no-default-features ""; do
    echo "== doorbell ${features:-with default features}"
    # shellcheck disable=SC2086 # no feature is no argument
    cargo tree --locked --edges normal --package doorbell $features
done
