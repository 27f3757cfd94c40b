//! An allocator that keeps nothing for itself, so that what a process has in memory is what it uses.
//!
//! The allocator of glibc keeps freed memory apart for each thread, in a cache that fills for many minutes and in a heap whose end not even
//! `malloc_trim` gives back: only that of the first heap goes. Neither is left over, but after a message of 10 MB it is 20 MB, and nobody could tell
//! something that is left over from it. With one heap and no caches, what is freed can go, and the number of bytes in use is exact.

use std::env;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::Context as _;

/// Returns `true` if the allocator of this process has been [set up](set_up).
pub(super) fn is_set_up() -> bool {
    env::var(TUNABLES).is_ok_and(|value| value.contains(ONE_HEAP))
}

/// Sets up the allocator of this process and of those that it starts. As it reads its settings only once, the program begins anew with the same
/// arguments. Other allocators read other settings.
///
/// # Errors
///
/// If the program cannot be started.
pub(super) fn set_up() -> anyhow::Result<()> {
    if is_set_up() {
        return Ok(());
    }
    let ours = format!("{ONE_HEAP}:{NO_CACHES}");
    let value = match env::var(TUNABLES) {
        Ok(others) => format!("{others}:{ours}"),
        Err(_) => ours,
    };
    let program = env::current_exe().context("cannot find this program to start it anew")?;
    let arguments = env::args_os().skip(1);
    let error = Command::new(program)
        .args(arguments)
        .env(TUNABLES, value)
        .exec();
    Err(error).context("cannot start this program anew")
}

const TUNABLES: &str = "GLIBC_TUNABLES";
const ONE_HEAP: &str = "glibc.malloc.arena_max=1";
const NO_CACHES: &str = "glibc.malloc.tcache_count=0";
