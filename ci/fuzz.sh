#!/usr/bin/env bash
# Every fuzz target for a minute, from the committed seeds: that the targets build, and that nothing shallow is wrong. A real
# run is the same with SECONDS_PER_TARGET=3600; what it finds is kept in fuzz/corpus, which is not committed.
#
# Two run at a time, for a target has one thread. What one says is printed when it has ended; all are run before the script fails.
#
# cargo-fuzz needs flags of the compiler that are not stable. RUSTC_BOOTSTRAP lets the stable compiler take them, so that no
# second toolchain is needed.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/common.sh
need c++ build-essential # libFuzzer

cargo fuzz --version 2>/dev/null | grep -q ' 0\.13\.' ||
    CARGO_TARGET_DIR="$CARGO_TARGET_DIR/tools" cargo install --locked cargo-fuzz --version 0.13.2

export RUSTC_BOOTSTRAP=1
export CARGO_TARGET_DIR="$CARGO_TARGET_DIR/fuzz"
# A peer's message never makes us take more than this at once; every limit of the targets is far below.
limits=(-malloc_limit_mb=64 -rss_limit_mb=1024 -timeout=5)

targets="$(cargo fuzz list)"
cargo fuzz build

said="$(mktemp -d)"
declare -A running=() # target by process
failed=()

stop() {
    local process
    for process in "${!running[@]}"; do kill -- "-$process"; done
    rm -rf "$said"
}
trap stop EXIT
set -m # a process group for each target, so that an end of the script is also theirs

fuzz() { # $1: target
    mkdir -p "fuzz/corpus/$1"
    cargo fuzz run "$1" "fuzz/corpus/$1" "fuzz/seeds/$1" -- \
        -max_total_time="${SECONDS_PER_TARGET:-60}" -print_final_stats=1 "${limits[@]}"
}

# Waits for the next target to end and prints what it has said.
end_one() {
    local process target outcome=passed
    wait -n -p process || outcome=FAILED
    target="${running[$process]}"
    unset "running[$process]"
    [ "$outcome" = passed ] || failed+=("$target")
    echo "--- $target $outcome"
    cat "$said/$target"
}

for target in $targets; do
    [ "${#running[@]}" -lt 2 ] || end_one
    fuzz "$target" >"$said/$target" 2>&1 </dev/null &
    running[$!]="$target"
done
while [ "${#running[@]}" -gt 0 ]; do end_one; done

if [ "${#failed[@]}" -gt 0 ]; then
    echo "failed: ${failed[*]}"
    exit 1
fi
