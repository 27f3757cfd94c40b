//! Facts about the host and this process.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, geteuid, getpid, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Returns the directory where servers of this user put their sockets, created if missing and private to the user.
///
/// It is `$DOORBELL_RUNTIME_DIR`, else `$XDG_RUNTIME_DIR/doorbell`, else `/tmp/doorbell-UID`. Values that are not
/// absolute paths do not count, as the XDG specification wants it.
///
/// # Errors
///
/// `PermissionDenied` or `NotADirectory`, with advice, when somebody else could have a hand in it: it is not a
/// directory (a symbolic link is none), belongs to another user, or is open to others.
pub fn runtime_directory() -> io::Result<PathBuf> {
    let user = geteuid().as_raw();
    let directory = absolute("DOORBELL_RUNTIME_DIR")
        .or_else(|| absolute("XDG_RUNTIME_DIR").map(|base| base.join("doorbell")))
        .unwrap_or_else(|| PathBuf::from(format!("/tmp/doorbell-{user}")));
    ensure_private(&directory)?;
    Ok(directory)
}

fn absolute(variable: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env::var_os(variable)?);
    path.is_absolute().then_some(path)
}

/// Creates `directory` if missing, and checks that it is ours alone.
fn ensure_private(directory: &Path) -> io::Result<()> {
    match rustix::fs::mkdir(directory, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(advise(directory, error.into(), "cannot be created")),
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(CWD, directory, flags, Mode::empty())
        .map_err(|error| advise(directory, error.into(), "is not a directory; remove it"))?;
    let stat = rustix::fs::fstat(&opened)?;
    let denied = || io::ErrorKind::PermissionDenied.into();
    if stat.st_uid != geteuid().as_raw() {
        return Err(advise(
            directory,
            denied(),
            "belongs to another user; set DOORBELL_RUNTIME_DIR",
        ));
    }
    if Mode::from_raw_mode(stat.st_mode).intersects(Mode::RWXG | Mode::RWXO) {
        return Err(advise(
            directory,
            denied(),
            "is open to other users; run chmod 700 on it",
        ));
    }
    Ok(())
}

fn advise(directory: &Path, error: io::Error, advice: &str) -> io::Error {
    io::Error::new(
        error.kind(),
        format!(
            "runtime directory {} {advice}: {error}",
            directory.display()
        ),
    )
}

/// Returns the number of CPUs that this process may run on, at least 1.
pub fn cpu_count() -> usize {
    allowed_cpus().map_or(1, |cpus| (cpus.count() as usize).max(1))
}

/// Lets the calling thread run on one CPU only: number `cpu` of those that the process may use, counted from 0.
///
/// # Errors
///
/// `InvalidInput` when `cpu` is not below [`cpu_count`].
pub fn pin_current_thread(cpu: usize) -> io::Result<()> {
    let allowed = allowed_cpus()?;
    let number = (0..CpuSet::MAX_CPU)
        .filter(|&number| allowed.is_set(number))
        .nth(cpu)
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("no CPU {cpu}: the process may use {}", allowed.count()),
            )
        })?;
    let mut only = CpuSet::new();
    only.set(number);
    Ok(sched_setaffinity(None, &only)?)
}

/// Returns the CPUs of the process: those of its first thread, as first seen. Pinning a thread does not change it.
fn allowed_cpus() -> io::Result<CpuSet> {
    static ALLOWED: OnceLock<CpuSet> = OnceLock::new();
    if let Some(allowed) = ALLOWED.get() {
        return Ok(*allowed);
    }
    let now = sched_getaffinity(Some(getpid()))?;
    Ok(*ALLOWED.get_or_init(|| now))
}

/// Raises the number of descriptors that the process may open to the most that the system allows, and returns it.
///
/// # Errors
///
/// None that the caller can do something about.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if limit != raised {
        setrlimit(Resource::Nofile, raised)?;
    }
    Ok(raised.current.unwrap_or(u64::MAX))
}

/// Returns the number of this process.
pub fn current_process_id() -> u32 {
    std::process::id()
}
