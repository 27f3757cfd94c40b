#!/usr/bin/env bash
# The tests of doorbell-proto, doorbell-shm and doorbell under ThreadSanitizer, with a standard library that is instrumented as well, without
# which it reports races inside of it that there are not. Arguments are names of test executables (`stress`, `doorbell_shm`); without
# any, all of them.
#
# It does not see a race through two mappings of one memory, because it knows memory by its address. So what it watches is everything that
# one process does with its own memory: the locks, tables, wakers and flags of connections, clients and servers, and the tasks of handlers. That
# two processes agree on the words that they share is for the models in ci/loom.sh. Nor does it see into assembly: the copy helper copies in
# words here, as in ci/asan.sh.
#
# No part of .ci/run: it is a build of everything and of the standard library, and the tests are slow; each executable has TSAN_SECONDS (300). Run it when
# something changes that threads of one process share.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/common.sh

# The compiler must be the one that the source of the standard library belongs to. Debian's package of that source has in it what the
# library depends on; rustup's component has not. The runtime comes with rustup's compiler, and one version apart has done so far.
host="$(rustc -vV | sed -n 's/^host: //p')"
runtime="$(ls "$(rustc --print sysroot)/lib/rustlib/$host/lib"/librustc-*_rt.tsan.a)"
debian=(rustc-web cargo-web rust-web-src)
if ! dpkg -s "${debian[@]}" >/dev/null 2>&1; then
    as_root apt-get update -qq
    as_root apt-get install -qq -y --no-install-recommends "${debian[@]}"
fi

# The runtime is named by us, because Debian's compiler has none of its own. And rustix calls the C library: what it asks the kernel for by itself
# is not seen, so that memory which one thread unmaps and another maps anew would be taken for the same.
export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
export RUSTFLAGS="-Zsanitizer=thread -Zexternal-clangrt -Zpre-link-arg=-Wl,--whole-archive,$runtime,--no-whole-archive --cfg rustix_use_libc"
export CARGO_TARGET_DIR="$CARGO_TARGET_DIR/tsan"
build() { /usr/bin/cargo "$@" -Zbuild-std --target "$host"; }

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# Processes that tests start write their reports here, too.
export TSAN_OPTIONS="suppressions=$PWD/ci/tsan.suppressions:log_path=$work/report:halt_on_error=0:${TSAN_OPTIONS:-}"
# Memory that it keeps for itself is not counted.
export DOORBELL_SANITIZED=1
reports() { cat "$work"/report.* 2>/dev/null || true; }

# A sanitizer that finds nothing may be one that does not work: here is something that it has to find.
mkdir -p "$work/planted/src"
cat >"$work/planted/Cargo.toml" <<'EOF'
[package]
name = "planted"
version = "0.0.0"
edition = "2024"
[workspace]
EOF
cat >"$work/planted/src/main.rs" <<'EOF'
//! Hands a number over behind a flag that orders nothing.
use std::{cell::UnsafeCell, sync::atomic::{AtomicBool, Ordering::Relaxed}};
struct Place(UnsafeCell<u64>, AtomicBool);
unsafe impl Sync for Place {}
static PLACE: Place = Place(UnsafeCell::new(0), AtomicBool::new(false));
fn main() {
    let giver = std::thread::spawn(|| {
        unsafe { *PLACE.0.get() = 7 };
        PLACE.1.store(true, Relaxed);
    });
    while !PLACE.1.load(Relaxed) {}
    println!("{}", unsafe { *PLACE.0.get() });
    giver.join().unwrap();
}
EOF
build run --quiet --manifest-path "$work/planted/Cargo.toml" || true
reports >"$work/planted/found"
rm -f "$work"/report.*
if ! grep -q 'WARNING: ThreadSanitizer: data race' "$work/planted/found"; then
    echo "the planted race was not found:" && cat "$work/planted/found"
    exit 1
fi
echo "the planted race was found"

export RUSTC_WORKSPACE_WRAPPER="$PWD/ci/portable-copy"
packages=(-p doorbell-proto -p doorbell-shm -p doorbell)
targets=()
for name in "$@"; do
    case $name in
    doorbell | doorbell_shm | doorbell_proto) targets+=(--lib) ;;
    *) targets+=(--test "$name") ;;
    esac
done
[ $# -gt 0 ] || targets=(--lib --tests)
build test --locked "${packages[@]}" --all-features "${targets[@]}" --no-run --message-format=json >"$work/built"
# Of each executable the directory of its package, where cargo runs it, and its path.
sed -n 's|.*"manifest_path":"\([^"]*\)/Cargo.toml".*"executable":"\([^"]*\)".*|\1 \2|p' "$work/built" >"$work/executables"

# What cannot run under it, with the reason.
skipped=(
    without_addresses_for_the_rings # a process that may have few addresses, of which the tool takes terabytes
)
seconds="${TSAN_SECONDS:-300}" # for each executable

status=0
while read -r directory executable; do
    name="$(basename "${executable%-*}")"
    if [ $# -gt 0 ] && [[ " $* " != *" $name "* ]]; then continue; fi
    begun=$SECONDS
    rm -f "$work"/report.*
    how=0
    (cd "$directory" && timeout "$seconds" "$executable" --quiet --test-threads=2 "${skipped[@]/#/--skip=}") \
        >"$work/said" 2>&1 </dev/null || how=$?
    count="$(reports | grep -c 'WARNING: ThreadSanitizer' || true)"
    case $how in
    0) how="passed" ;;
    124) how="NOT DONE in $seconds s" ;;
    *) how="FAILED ($how)" ;;
    esac
    printf '%-20s %4d s  %3d reports  %s\n' "$name" $((SECONDS - begun)) "$count" "$how"
    if [ "$how" != passed ] || [ "$count" -gt 0 ]; then
        status=1
        grep -E '^test .*FAILED|panicked|not in time' "$work/said" | head -n 20 || true
        reports | head -n 200
    fi
done <"$work/executables"
exit $status
