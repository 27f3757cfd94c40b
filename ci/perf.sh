#!/usr/bin/env bash
# As fast as it was? Instructions per message against committed counts, and a few ratios to the raw reference of the same run. What it
# prints says which figure is beyond its limit and by how much. Nothing else should run meanwhile, but the instructions do not mind.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/common.sh
need valgrind valgrind

cargo bench --locked -p doorbell-cli --bench gate -- "$@"
