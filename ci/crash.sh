#!/usr/bin/env bash
# Death at every step. A build of its own, in which the places between the steps of a connection are named: a process with servers and
# one with clients end themselves at each, and the other side must come out of it with the right outcome for every call.
#
# Then the kills at random points of ci/test.sh, on a ring that publishes before it writes: they must find torn messages, or their
# silence about the real one means nothing.
#
# In the same build every system call has a name under which it can be made to fail: each does, with each of eight errors, and is survived
# or reported. DOORBELL_ALL_FAULTS=1 has it fail with each error each time that it is made, and not only the first time.
#
# A wrapper of the compiler sets the flag for our crates only, so that what they depend on is not built again.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/common.sh

export RUSTC_WORKSPACE_WRAPPER="$PWD/ci/failpoints"
deaths() { cargo test --locked -p doorbell --all-features --test peer_death -- --nocapture "$@"; }

deaths each_step

said="$(mktemp)"
trap 'rm -f "$said"' EXIT
for test in server_of_tasks clients_of_both; do
    if DOORBELL_BROKEN_PUBLISH=1 DOORBELL_DEATH_KILLS=400 deaths "$test" >"$said" 2>&1; then
        echo "a ring that publishes before it writes has passed $test"
        exit 1
    fi
    grep -o 'torn: [1-9][0-9]*' "$said" | head -n 1 || { cat "$said"; exit 1; }
done

cargo test --locked -p doorbell --all-features --test faults
cargo test --locked -p doorbell-shm --all-features --test sys_faults
