#!/usr/bin/env bash
# All tests: units, two-process tests, examples in the documentation. The example programs are built with them.
#
# Then once more with the socket byte as the doorbell, the one that other systems and peers of other users get. On Linux it
# would otherwise never run. It has a target directory of its own, because the flag changes every crate.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/common.sh

cargo test --locked --workspace --all-features

export RUSTFLAGS="${RUSTFLAGS:-} --cfg doorbell_socket_bell"
export CARGO_TARGET_DIR="$CARGO_TARGET_DIR/socket-bell"
cargo test --locked -p doorbell-shm -p doorbell --all-features --tests
