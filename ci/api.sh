#!/usr/bin/env bash
# Is the public interface of the library crates what docs/api says? A change of it is meant to be seen by whoever reads the change, and
# to be written into CHANGELOG.md. With --write the lists are made anew. Not part of .ci/run: building cargo-public-api takes minutes.
#
# The list is made from what rustdoc knows, in a format that is not stable. RUSTC_BOOTSTRAP lets the stable compiler write it; the
# version of the tool is the one that reads what Rust 1.95 writes.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/common.sh

version=0.52.0
tools="$CARGO_TARGET_DIR/tools"
PATH="$tools/bin:$PATH"
cargo public-api --version 2>/dev/null | grep -q " $version\$" ||
    CARGO_TARGET_DIR="$tools" cargo install --locked --root "$tools" cargo-public-api --version "$version"

# Everything of one crate: all features, without what follows from its types by itself.
list() {
    RUSTC_BOOTSTRAP=1 cargo public-api --package "$1" --all-features -sss
}

failed=0
for crate in doorbell doorbell-proto doorbell-shm; do
    file="docs/api/$crate.txt"
    if [ "${1:-}" = --write ]; then
        list "$crate" >"$file"
    elif ! list "$crate" | diff -u "$file" -; then
        echo "the interface of $crate is not what $file says; if that is meant: ci/api.sh --write" >&2
        failed=1
    fi
done
exit "$failed"
