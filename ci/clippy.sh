#!/usr/bin/env bash
# Lints, with every warning an error: all features together, and the blocking half alone, where code that is used by the awaiting
# half only would show as dead.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/common.sh
need_component clippy clippy

cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
cargo clippy --locked -p doorbell --no-default-features -- -D warnings
