//! The system calls of this directory that can fail, each under its name.
//!
//! All of them go through [`call`] or [`call_once`]; `ci/architecture.sh` looks for one that does not. In an ordinary build the names
//! are gone. With `--cfg doorbell_faults` a test says which of them is to fail, and with what; see `faults`.
//!
//! Not here is what cannot fail on what is ours: `munmap` of a range that we mapped, `close`, the clock, what a thread has
//! used, and the numbers of this process and its user.

use rustix::io::{Result, retry_on_intr};

/// Makes the enum and, for tests, the list of all its values.
macro_rules! calls {
    ($($name:ident,)+) => {
        /// A system call. One that is several to us, such as `fcntl`, has a name for each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "they are the kernel's names")]
        #[cfg_attr(not(doorbell_faults), allow(unreachable_pub, reason = "tests see it, in another build"))]
        pub enum Call {
            $($name,)+
        }

        #[cfg(doorbell_faults)]
        impl Call {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];
        }
    };
}

calls! {
    Accept, AddSeals, Bind, Chmod, Connect, Dup, EpollAdd, EpollCreate, EpollDelete, EpollWait, Eventfd, Fallocate, Fchmod, Flock, Fstat,
    Fstatfs, Ftruncate, FutexWait, FutexWaitv, FutexWake, GetFlags, GetSeals, Getsockopt, Ioctl, Listen, Lstat, Madvise, MemfdCreate,
    Mkdir, Mmap, Openat, PidfdOpen, Poll, Preadv, Readlink, Recv, Recvmsg, SchedGetaffinity, SchedSetaffinity, Send, Sendmsg,
    Setrlimit, Setsockopt, Socket, Socketpair, Unlink, Write,
}

/// Makes a system call, again if a signal has interrupted it.
#[inline(always)]
pub(super) fn call<T>(name: Call, mut make: impl FnMut() -> Result<T>) -> Result<T> {
    retry_on_intr(|| {
        fail(name)?;
        make()
    })
}

/// Makes a system call that must be prepared anew after an interruption, because it has a time limit.
#[inline(always)]
pub(super) fn call_once<T>(name: Call, make: impl FnOnce() -> Result<T>) -> Result<T> {
    fail(name)?;
    make()
}

#[cfg(not(doorbell_faults))]
#[inline(always)]
const fn fail(_name: Call) -> Result<()> {
    Ok(())
}

#[cfg(doorbell_faults)]
use super::faults::fail;
