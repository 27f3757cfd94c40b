#!/usr/bin/env bash
# The invariants by absence of ARCHITECTURE.md that a machine can see. Each prints what breaks it; all are checked before it fails.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/common.sh

failed=0

# $1: rule; standard input: lines that break it
none() {
    local found
    found="$(cat)"
    if [ -z "$found" ]; then
        echo "holds   $1"
    else
        printf 'BROKEN  %s\n%s\n' "$1" "$found"
        return 1
    fi
}

# Lines of Rust files that match $1 and are more than a comment; $2...: where.
code() {
    local pattern="$1"
    shift
    { grep -rnE --include='*.rs' "$pattern" "$@" || [ $? = 1 ]; } | without '^[^:]+:[0-9]+: *//'
}

# grep that finds nothing without calling it a failure; what it cannot read or understand is one.
without() { grep -vE "$1" || [ $? = 1 ]; }
only() { grep -xE "$1" || [ $? = 1 ]; }

code '\b(target_os|target_family|target_vendor)\b|cfg(_attr|!)?\((all\(|any\(|not\()*(unix|windows)\b' crates |
    without '^crates/doorbell-shm/src/sys/' |
    none 'no cfg on an operating system outside doorbell-shm/src/sys' || failed=1

# Only what can be code: in an attribute the word has an underscore behind it.
code '\bunsafe\b( *\{| +(fn|impl|trait|extern)\b)|\bunsafe *$' crates |
    without '^crates/doorbell-shm/(src/(sys|memory|ring|loom_tests)/|tests/|examples/)' | # the cells of the models are loom's |
    without '^crates/doorbell/tests/archives\.rs:[0-9]+: *unsafe \{ archive\.as_slice\(\) \}$' | # plays a program that trusts its peer
    none 'no unsafe outside doorbell-shm, and there only in sys, memory and ring' || failed=1

for root in crates/*/src/lib.rs crates/*/src/main.rs; do
    case "$root" in crates/doorbell-shm/*) continue ;; esac
    grep -q '^#!\[forbid(unsafe_code)\]' "$root" || echo "$root"
done | none 'every other crate forbids unsafe' || failed=1

code '\b(Instant|SystemTime|tokio|rustix|libc)\b|std::(net|os|thread|fs|process)\b' crates/doorbell-proto/src |
    none 'no clock, socket, thread or tokio in doorbell-proto' || failed=1

# $1: package, $2...: options of cargo tree; prints the names of all it is built from
dependencies() {
    cargo tree --locked --quiet --edges normal,build --prefix none --format '{p}' -p "$@" | cut -d ' ' -f 1 | sort -u
}

dependencies doorbell-shm --all-features | only doorbell-proto |
    none 'doorbell-shm does not depend on doorbell-proto' || failed=1
dependencies doorbell-proto --all-features | only 'doorbell-shm|tokio|rustix|libc|mio' |
    none 'doorbell-proto depends neither on doorbell-shm nor on the system' || failed=1
dependencies doorbell --no-default-features | only 'tokio.*|mio|futures.*' |
    none 'no tokio in the blocking path' || failed=1

# A call that tests cannot make fail is never seen to fail. What may stand outside `call(Call::NAME, ..)` cannot fail: `call.rs` says why.
# Perl, because the arguments go over several lines.
for file in crates/doorbell-shm/src/sys/linux/*.rs; do
    FILE="$file" perl -0777 -ne '
        s/^#\[cfg\(test\)\].*//ms;
        s{//[^\n]*}{}g;
        my $inner;
        $inner = qr/\((?:[^()]++|(??{$inner}))*\)/;
        s{\bcall(?:_once)?(?=\(Call::)$inner}{$& =~ tr/\n//cdr}ge;
        my $cannot_fail = qr/\b(?:retry_on_intr|munmap|sysconf|geteuid|getpid|getrlimit|getrusage|clock_gettime|kill_process|malloc_trim|mallinfo)\b/;
        my $calls = qr/\b(?:rustix|libc)::(?:\w+::)*[a-z_0-9]+\(|\bfs::[a-z_]+\(|\.try_clone\(/;
        my @found;
        push @found, $& while /$calls/g;
        # A function under a short name would be overlooked.
        while (/\buse (?:rustix|libc|std::fs)\b[^;]*;/g) {
            my $use = $&;
            push @found, "use $1" while $use =~ /\b([a-z_0-9]+)\s*[,;}]/g;
        }
        print "$ENV{FILE}: $_\n" for grep { $_ !~ $cannot_fail } @found;
    ' "$file"
done | none 'every system call of sys can be made to fail' || failed=1

# Sleeping in order to wait for something hides the event that is missing; a sleep until the caller's own deadline does not. What
# is listed here has no event to wait for: a stranger's lock on a directory (a few tries), the pause between two attempts to
# reach a server that may never start, programs that measure or wait for a person, and tests that look for what nothing announces,
# such as the number of a process's descriptors.
code '(thread|time)::sleep\(|[^._a-z:]sleep\(|\binterval\(|(park|recv|wait)_timeout\(' crates/*/src |
    without '/(tests|loom_tests)(/|\.rs)|fn sleep\(' |
    without '^crates/doorbell-shm/src/sys/linux/listener\.rs:[0-9]+:.*sleep\(LOCK_PAUSE\)' |
    without '^crates/doorbell/src/(blocking/client|client/dialer)\.rs:[0-9]+:.*sleep\(pause\)' |
    without '^crates/doorbell/src/connection/thread\.rs:[0-9]+:.*park_timeout\(left\)' | # until the caller's deadline
    without '^crates/doorbell/src/blocking/client\.rs:[0-9]+:.*wait_timeout\(dialing, left\)' | # likewise
    without '^crates/doorbell/src/blocking/threads\.rs:[0-9]+:.*wait_timeout\(state, left\)' | # until an idle thread leaves, once
    without '^crates/doorbell-cli/src/(bench/|ping\.rs)' |
    without '^crates/doorbell-testkit/src/(lib|child)\.rs:[0-9]+:.*(sleep\(Duration::from_millis\(1\)\)|recv_timeout\(PATIENCE\))' |
    none 'no sleeping and no periodic timeout as synchronisation' || failed=1

exit "$failed"
