#!/usr/bin/env bash
# All tests: units, two-process tests, examples in the documentation. The example programs are built with them.
#
# Then once more with the socket byte as the doorbell, the one that other systems and peers of other users get. On Linux it
# would otherwise never run. A wrapper of the compiler sets the flag for our crates only, so that what they depend on is not built
# again.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/common.sh

cargo test --locked --workspace --all-features

export RUSTC_WORKSPACE_WRAPPER="$PWD/ci/socket-bell"
cargo test --locked -p doorbell-shm -p doorbell --all-features --tests
