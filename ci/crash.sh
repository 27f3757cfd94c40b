#!/usr/bin/env bash
# Death at every step. A build of its own, in which the places between the steps of a connection are named: a process with servers and
# one with clients end themselves at each, and the other side must come out of it with the right outcome for every call.
#
# A wrapper of the compiler sets the flag for our crates only, so that what they depend on is not built again.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/common.sh

export RUSTC_WORKSPACE_WRAPPER="$PWD/ci/failpoints"
cargo test --locked -p doorbell --all-features --test peer_death -- --nocapture each_step
