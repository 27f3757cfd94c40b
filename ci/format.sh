#!/usr/bin/env bash
# Formatting: differences of layout hide differences of meaning. The cheapest check, so the first.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/common.sh

need_component fmt rustfmt

cargo fmt --all --check
cargo fmt --manifest-path fuzz/Cargo.toml --check
