#!/usr/bin/env bash
# Every fuzz target for a short while, from the committed seeds: that the targets build, and that nothing shallow is wrong. A real
# run is the same with SECONDS_PER_TARGET=3600; what it finds is kept in fuzz/corpus, which is not committed.
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

for target in $(cargo fuzz list); do
    mkdir -p "fuzz/corpus/$target"
    cargo fuzz run "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="${SECONDS_PER_TARGET:-25}" -print_final_stats=1 "${limits[@]}"
done
