# Sourced by every script here: a toolchain and a C linker, installed if missing, and one place for what is built.
# A fresh Debian has neither a linker nor, in the minimal profile of rustup, rustfmt and clippy.

# A shell that has just installed rustup does not have it in its path.
[ -d "${CARGO_HOME:-$HOME/.cargo}/bin" ] && PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
command -v cargo >/dev/null || { echo "install rustup with Rust 1.95 first" >&2; exit 1; }

# Rust 1.95 if it is there beside a newer one, so that everybody gets the same warnings.
if [ -z "${RUSTUP_TOOLCHAIN:-}" ] && command -v rustup >/dev/null; then
    toolchain="$(rustup toolchain list | sed -n 's/^\(1\.95[^ ]*\).*/\1/p' | head -n 1)"
    [ -z "$toolchain" ] || export RUSTUP_TOOLCHAIN="$toolchain"
fi

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# $1: command, $2: Debian package that has it
need() {
    command -v "$1" >/dev/null && return
    as_root apt-get update -qq
    as_root apt-get install -qq -y --no-install-recommends "$2"
}

# $1: subcommand of cargo, $2: component of rustup that has it
need_component() {
    cargo "$1" --version >/dev/null 2>&1 || rustup component add "$2"
}

need cc build-essential

# Each thing is built once here, and nobody attaches a debugger: line numbers for backtraces will do.
export CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=line-tables-only

export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-auto}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}"
