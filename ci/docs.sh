#!/usr/bin/env bash
# The documentation builds without a broken link, with every feature and with none, and the links between the pages of this
# repository lead somewhere.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/common.sh

export RUSTDOCFLAGS='-D warnings'
cargo doc --locked -p doorbell -p doorbell-shm --no-default-features --no-deps
cargo doc --locked --workspace --all-features --no-deps

failed=0
while IFS=: read -r page link; do
    target="$(dirname "$page")/${link%%#*}"
    [ -e "$target" ] || { echo "$page: no such file: $link"; failed=1; }
done < <(git ls-files '*.md' | xargs grep -oE '\]\([^)#: ]+[^):]*\)' /dev/null | sed -E 's/\]\(([^)]*)\)$/\1/')
exit "$failed"
