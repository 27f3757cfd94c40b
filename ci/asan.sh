#!/usr/bin/env bash
# The whole suite under AddressSanitizer, with its search for leaks. Processes that tests start are test executables or `doorbell`
# itself, and so they are watched as well. Arguments go to the tests, a name for instance.
#
# It does not see into assembly, so that here the copy helper copies in words. (ci/test.sh runs the assembly.) The standard library is
# not instrumented. What lies behind a mapping is unmapped or not, and is watched by the processor alone.
#
# No part of .ci/run: it is a build of everything, and the tests take several times as long.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/common.sh

# Needs a flag of the compiler that is not stable; see ci/fuzz.sh. With a target given, it is not for build scripts.
host="$(rustc -vV | sed -n 's/^host: //p')"
export RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address
export RUSTC_WORKSPACE_WRAPPER="$PWD/ci/portable-copy"
export CARGO_TARGET_DIR="$CARGO_TARGET_DIR/asan"

# It may keep the variables of a function on the heap, in order to see their use after the return. Decoding would then not know how much
# of the stack it has taken, and refuse what is not nested at all.
# What is freed it keeps for a while, 256 MB unless told otherwise: more than a process may grow by that tests watch for growing.
export ASAN_OPTIONS="detect_stack_use_after_return=0:quarantine_size_mb=4:${ASAN_OPTIONS:-}"

# Of threads that come and go it keeps something as well, 7 to 25 kB for each killed client of a server of threads, by the other options too:
# the test that kills hundreds judges growth without it only. (Leaks it finds by itself.)
export DOORBELL_SANITIZED=1

# What cannot run under it, with the reason.
skipped=(
    # RLIMIT_AS: the sanitizer itself reserves 15 TB of addresses for its shadow.
    client_without_addresses_for_the_rings_says_so_and_can_ask_for_less
    server_without_addresses_for_the_rings_refuses_and_serves_others
)

status=0
check() { cargo test --locked --workspace --all-features --target "$host" --no-fail-fast "$@" || status=1; }
check --lib --bins --tests --examples -- "${skipped[@]/#/--skip=}" "$@"
RUSTDOCFLAGS=-Zsanitizer=address check --doc -- "$@"
exit $status
