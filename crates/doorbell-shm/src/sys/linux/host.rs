//! Facts about the host and this process.

use std::env;
use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::sync::{
    OnceLock,
    atomic::{AtomicBool, Ordering},
};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, geteuid, getpid, getrlimit};
use rustix::thread::CpuSet;

use super::call::{Call, call};
use crate::sys::ThreadSleeps;

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
    let directory = choose_directory(
        env::var_os("DOORBELL_RUNTIME_DIR"),
        env::var_os("XDG_RUNTIME_DIR"),
        geteuid().as_raw(),
    );
    ensure_private(&directory)?;
    Ok(directory)
}

fn choose_directory(ours: Option<OsString>, base: Option<OsString>, user: u32) -> PathBuf {
    absolute(ours)
        .or_else(|| absolute(base).map(|base| base.join("doorbell")))
        .unwrap_or_else(|| PathBuf::from(format!("/tmp/doorbell-{user}")))
}

fn absolute(value: Option<OsString>) -> Option<PathBuf> {
    value.map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Creates `directory` if missing, and checks that it is ours alone.
fn ensure_private(directory: &Path) -> io::Result<()> {
    match call(Call::Mkdir, || rustix::fs::mkdir(directory, Mode::RWXU)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(advise(directory, error.into(), "cannot be created")),
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = call(Call::Openat, || {
        rustix::fs::openat(CWD, directory, flags, Mode::empty())
    });
    let opened = opened.map_err(|error| match error {
        Errno::NOTDIR => advise(directory, error.into(), "is not a directory; remove it"),
        error => advise(directory, error.into(), "cannot be opened"),
    })?;
    let stat = call(Call::Fstat, || rustix::fs::fstat(&opened))
        .map_err(|error| advise(directory, error.into(), "cannot be examined"))?;
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
    HAS_PINNED.store(true, Ordering::Relaxed);
    run_on(&only)
}

/// Lets the calling thread run on every CPU of the process again: a thread is pinned to the same CPU as the one that has started it. Does
/// nothing if [`pin_current_thread`] was never called.
///
/// # Errors
///
/// If the system refuses.
pub fn unpin_current_thread() -> io::Result<()> {
    if !HAS_PINNED.load(Ordering::Relaxed) {
        return Ok(());
    }
    run_on(&allowed_cpus()?)
}

static HAS_PINNED: AtomicBool = AtomicBool::new(false);

fn run_on(cpus: &CpuSet) -> io::Result<()> {
    Ok(call(Call::SchedSetaffinity, || {
        rustix::thread::sched_setaffinity(None, cpus)
    })?)
}

/// Returns how often the calling thread has slept, and how often it has touched a page that was not there.
pub fn thread_sleeps() -> ThreadSleeps {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the second argument points to memory of that type, which is ours.
    let failed = unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
    debug_assert_eq!(failed, 0, "nothing can be wrong with the arguments");
    // SAFETY: it is a struct of integers, all of which were zero before the system filled it.
    let usage = unsafe { usage.assume_init() };
    let count = |number: libc::c_long| u64::try_from(number).unwrap_or(0);
    ThreadSleeps {
        sleeps: count(usage.ru_nvcsw),
        faults: count(usage.ru_minflt) + count(usage.ru_majflt),
    }
}

/// Returns the CPUs of the process: those of its first thread, as first seen. Pinning a thread does not change it.
fn allowed_cpus() -> io::Result<CpuSet> {
    static ALLOWED: OnceLock<CpuSet> = OnceLock::new();
    if let Some(allowed) = ALLOWED.get() {
        return Ok(*allowed);
    }
    let now = call(Call::SchedGetaffinity, || {
        rustix::thread::sched_getaffinity(Some(getpid()))
    })?;
    Ok(*ALLOWED.get_or_init(|| now))
}

/// Makes the allocator of the process give back what it keeps of freed memory, the end of the calling thread's heap too. Returns `true` if it
/// gave something back; `false` also where the system's allocator has no such call. Takes about a tenth of a second for a gigabyte, and a
/// millisecond for nothing.
pub fn trim_heap() -> bool {
    #[cfg(target_env = "gnu")]
    {
        stretch_heap();
        // SAFETY: `malloc_trim` may be called at any time from any thread; it takes the allocator's own locks and changes no memory that
        // is in use.
        unsafe { libc::malloc_trim(0) == 1 }
    }
    #[cfg(not(target_env = "gnu"))]
    false
}

/// Makes the end of this thread's heap so large that the allocator of glibc gives it back.
///
/// `malloc_trim` leaves the ends of all heaps alone but the first one's. They are given back when something is freed and the end is larger than a
/// limit, twice the largest block that was ever mapped for itself, which can be read nowhere, and can be set only by giving up that it
/// follows the program. What is written for this is the head of each block.
#[cfg(target_env = "gnu")]
fn stretch_heap() {
    let mut blocks = Vec::new();
    for _ in 0..STRETCH_BLOCKS {
        let mut block = Vec::<u8>::new();
        if block.try_reserve_exact(STRETCH_BLOCK_BYTES).is_err() {
            break; // the process may not have so much: it goes without
        }
        blocks.push(std::hint::black_box(block));
    }
}

/// Less than what is mapped for itself, and enough for the allocator to look at the end when it is freed.
#[cfg(target_env = "gnu")]
const STRETCH_BLOCK_BYTES: usize = 120 << 10;

/// The limit is 64 MiB at most.
#[cfg(target_env = "gnu")]
const STRETCH_BLOCKS: usize = (64 << 20) / STRETCH_BLOCK_BYTES + 1;

/// Returns the bytes that the allocator of the process has handed out and not got back, those that it keeps ready for each thread
/// included; above 4 GiB it starts again from 0 for blocks within its heaps. `None` where the system's allocator has no such call, or is not the
/// one in use.
pub fn heap_bytes_in_use() -> Option<u64> {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: `mallinfo` may be called at any time from any thread; it takes the allocator's own locks and changes nothing. The newer
        // `mallinfo2` has wider fields, but programs that use it do not start where the C library is older than 2.33.
        let info = unsafe { libc::mallinfo() };
        let wide = |bytes: libc::c_int| u64::from(bytes.cast_unsigned());
        let in_use = wide(info.uordblks) + wide(info.hblkhd);
        (in_use > 0).then_some(in_use) // nothing at all is what it says when another allocator stands before it
    }
    #[cfg(not(target_env = "gnu"))]
    None
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
        call(Call::Setrlimit, || {
            rustix::process::setrlimit(Resource::Nofile, raised)
        })?;
    }
    Ok(raised.current.unwrap_or(u64::MAX))
}

/// Returns `true` if something failed because this process, or the whole system, has no descriptor left.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    let codes = [Errno::MFILE, Errno::NFILE].map(|code| Some(code.raw_os_error()));
    codes.contains(&error.raw_os_error())
}

/// Returns the number of this process.
pub fn current_process_id() -> u32 {
    std::process::id()
}

/// Ends this process as a crash does: no destructor runs, nothing is flushed, and no other thread gets to do more than the step it is at.
#[cfg(doorbell_failpoints)]
pub(crate) fn kill_this_process() -> ! {
    let killed =
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    unreachable!("nobody outlives SIGKILL: {killed:?}");
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn chosen(ours: &str, base: &str) -> PathBuf {
        choose_directory(Some(ours.into()), Some(base.into()), 7)
    }

    #[test]
    fn memory_that_is_allocated_is_in_use() {
        let Some(before) = heap_bytes_in_use() else {
            let sanitizers = ["ASAN_OPTIONS", "TSAN_OPTIONS"];
            let has_its_own = sanitizers.iter().any(|name| env::var_os(name).is_some());
            assert!(has_its_own || cfg!(not(target_env = "gnu")));
            return;
        };
        let ours = std::hint::black_box(vec![1_u8; 256 << 20]);
        let during = heap_bytes_in_use().unwrap();
        drop(ours);
        let after = heap_bytes_in_use().unwrap();
        // Other tests allocate meanwhile, but not that much.
        let half = 128 << 20;
        assert!(
            during > before + half && after + half < during,
            "{before} {during} {after}"
        );
    }

    #[test]
    fn directory_is_the_first_absolute_one() {
        assert_eq!(chosen("/ours", "/base"), Path::new("/ours"));
        assert_eq!(chosen("ours", "/base"), Path::new("/base/doorbell"));
        assert_eq!(chosen("", "base"), Path::new("/tmp/doorbell-7"));
        assert_eq!(
            choose_directory(None, None, 7),
            Path::new("/tmp/doorbell-7")
        );
    }

    #[test]
    fn missing_directory_is_created_private_and_found_again() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("doorbell");
        for _ in 0..2 {
            ensure_private(&directory).unwrap();
            let mode = fs::metadata(&directory).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
        }
    }

    #[test]
    fn directory_open_to_others_is_refused_with_advice() {
        let directory = tempfile::tempdir().unwrap();
        for mode in [0o710, 0o701, 0o770, 0o1777] {
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
            let error = ensure_private(directory.path()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
            assert!(error.to_string().contains("chmod 700"), "{error}");
        }
    }

    #[test]
    fn directory_of_another_user_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let foreign = if geteuid().is_root() {
            let user = Some(rustix::fs::Uid::from_raw(12_345));
            rustix::fs::chown(directory.path(), user, None).unwrap();
            directory.path()
        } else {
            Path::new("/")
        };
        let error = ensure_private(foreign).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("another user"), "{error}");
    }

    #[test]
    fn link_and_file_are_no_directories() {
        let parent = tempfile::tempdir().unwrap();
        let real = parent.path().join("real");
        ensure_private(&real).unwrap();
        let link = parent.path().join("link");
        symlink(&real, &link).unwrap();
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [link, file] {
            let error = ensure_private(&path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotADirectory, "{error}");
        }
        let nowhere = ensure_private(&parent.path().join("no/such")).unwrap_err();
        assert_eq!(nowhere.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn pinned_thread_stays_on_its_cpu() {
        let count = cpu_count();
        for cpu in 0..count {
            let pinned = std::thread::spawn(move || {
                pin_current_thread(cpu).unwrap();
                let mine = rustix::thread::sched_getaffinity(None).unwrap();
                assert_eq!(mine.count(), 1);
                cpu_count()
            });
            assert_eq!(pinned.join().unwrap(), count); // seen from anywhere
        }
        let beyond = pin_current_thread(count).unwrap_err();
        assert_eq!(beyond.kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn thread_of_a_pinned_one_may_be_unpinned() {
        let allowed = allowed_cpus().unwrap();
        let mine = || rustix::thread::sched_getaffinity(None).unwrap();
        let pinned = std::thread::spawn(move || {
            pin_current_thread(0).unwrap();
            let started = std::thread::spawn(move || {
                let inherited = mine().count();
                unpin_current_thread().unwrap();
                (inherited, mine())
            });
            (started.join().unwrap(), mine().count())
        });
        let ((inherited, unpinned), stays) = pinned.join().unwrap();
        assert_eq!((inherited, stays), (1, 1));
        assert_eq!(unpinned, allowed);
    }

    #[test]
    fn descriptor_limit_is_raised_to_the_hard_one() {
        let raised = raise_descriptor_limit().unwrap();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
        assert_eq!(limit.current.unwrap_or(u64::MAX), raised);
        assert_eq!(raise_descriptor_limit().unwrap(), raised);
    }
}
