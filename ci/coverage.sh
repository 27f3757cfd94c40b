#!/usr/bin/env bash
# How much of the decoders is reached: every line of theirs that the tests of doorbell-proto run, or the committed seeds of the fuzz
# targets. Prints a table, and which lines are not reached; fails if it is less than 95 % of the lines of all of them, or of one.
#
# A line counts once, whatever it was compiled into. Tests that stand in the file of a decoder are not counted as its lines.
# No part of .ci/run: the build with counters takes some minutes, and what is reached changes with the decoders only.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/common.sh
need c++ build-essential # libFuzzer

decoders=(frame/{mod,kind,body,packed,loan} handshake/{mod,codec,messages,negotiate} metadata status connection/control)
targets=(frame handshake control control_bytes connection)
least_percent=95

# Profiles are read by the LLVM that the compiler has: rustup's component llvm-tools, or Debian's package of it.
host="$(rustc -vV | sed -n 's/^host: //p')"
tools="$(rustc --print sysroot)/lib/rustlib/$host/bin"
if [ ! -x "$tools/llvm-cov" ]; then
    tools="/usr/lib/rustlib/$host/bin"
    need "$tools/llvm-cov" rust-web-llvm
fi

export CARGO_TARGET_DIR="$CARGO_TARGET_DIR/coverage"
export RUSTFLAGS=-Cinstrument-coverage
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

build() { # prints what has been built that can be run
    cargo "$@" --locked --target "$host" --message-format=json | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p'
}

# $1: an executable, then its arguments; appends every line of it with how often it was run. Each is read apart, because the same
# function need not look the same in two of them. Nothing that it says is printed unless it fails.
count_lines() {
    rm -f "$work"/*.profraw
    LLVM_PROFILE_FILE="$work/%p-%m.profraw" "$@" >"$work/said" 2>&1 || { cat "$work/said"; return 1; }
    "$tools/llvm-profdata" merge -sparse "$work"/*.profraw -o "$work/profile"
    "$tools/llvm-cov" export -format=lcov -instr-profile="$work/profile" "$1" >>"$work/lines"
}

tests="$(build test --no-run -p doorbell-proto --all-features --tests)"
for test in $tests; do
    (cd crates/doorbell-proto && count_lines "$test")
done

# shellcheck disable=SC2046 # one argument for each
fuzz="$(build build --manifest-path fuzz/Cargo.toml $(printf -- '--bin %s ' "${targets[@]}"))"
for target in $fuzz; do
    count_lines "$target" fuzz/seeds/"$(basename "$target")"/* # each seed once
done

awk -v least="$least_percent" -v root="$PWD/crates/doorbell-proto/src/" -v decoders="${decoders[*]}" '
    # Returns the line at which the tests begin, which stand last.
    function end_of_code(file,    line, number) {
        while ((getline line <file) > 0 && line !~ /^#\[cfg\(test\)\]/) number++
        close(file)
        return number + 1
    }
    function print_row(name, reached, of, missed) {
        printf "%-22s %6d %6d %7.1f %%  %s\n", name, reached, of, 100 * reached / of, missed
        if (100 * reached < least * of) failed = 1
    }
    BEGIN { count = split(decoders, names, " ") }
    /^SF:/ {
        name = ""
        for (i = 1; i <= count; i++) if (substr($0, 4) == root names[i] ".rs") name = names[i]
        if (name != "") end = end_of_code(substr($0, 4))
    }
    /^DA:/ && name != "" {
        split(substr($0, 4), line, ",")
        if (line[1] + 0 >= end) next
        count_of[name, line[1]] += line[2]
        if (line[1] > last[name]) last[name] = line[1] + 0
    }
    END {
        print "decoder               reached     of            lines not reached"
        for (i = 1; i <= count; i++) {
            name = names[i]
            for (at = 1; at <= last[name]; at++) {
                if (!((name, at) in count_of)) continue
                of[name]++
                if (count_of[name, at] > 0) reached[name]++; else missed[name] = missed[name] " " at
            }
            if (!of[name]) { print name ": no lines of it were found"; exit 1 }
            print_row(name, reached[name], of[name], missed[name])
            all += of[name]; all_reached += reached[name]
        }
        print_row("all", all_reached, all, "")
        exit failed
    }
' "$work/lines"
