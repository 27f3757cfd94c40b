//! Who the peer is, and when its process ends.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Instant;

use rustix::event::PollFlags;
use rustix::process::{Pid, PidfdFlags};

use super::call::{Call, call};
use super::deadline::{poll_now, poll_one};
use crate::sys::Woken;

/// The process and user at the other end, as of the moment the connection was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerIdentity {
    /// Process number, 0 when the process is in a namespace that we cannot see into. It may be another process's by
    /// now: for display, not for decisions.
    pub pid: u32,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

impl PeerIdentity {
    /// Returns `true` if the peer runs as the user that we run as.
    pub fn is_same_user(&self) -> bool {
        self.uid == rustix::process::geteuid().as_raw()
    }

    /// Returns the program that process [`pid`](Self::pid) runs now, if we may know. For display.
    pub fn executable(&self) -> Option<PathBuf> {
        let link = format!("/proc/{}/exe", self.pid);
        let program = call(Call::Readlink, || rustix::fs::readlink(&link, Vec::new())).ok()?;
        Some(OsString::from_vec(program.into_bytes()).into())
    }

    /// Returns the program that `process` runs now, which must be the handle of this peer; `None` if we may not know or it has ended.
    ///
    /// Certain, if the handle [is](ProcessHandle::is_certain): it is a program that this process has run between the connection and now.
    /// Not certain: that it is the one that connected, because a process can start another program and keep its descriptors, or hand
    /// them to another process; and what else the process has loaded. The path is one of the peer's own file system, and ends in
    /// " (deleted)" if the file is gone.
    pub fn executable_of(&self, process: &ProcessHandle) -> Option<PathBuf> {
        let program = self.executable()?;
        // A number is given to another process only after its process has ended: it was ours when we looked.
        (!process.has_exited().ok()?).then_some(program)
    }
}

/// A process, pinned: its number may be given to another one, this handle never means another one.
#[derive(Debug)]
pub struct ProcessHandle {
    pidfd: OwnedFd,
    is_certain: bool,
}

impl ProcessHandle {
    pub(super) fn from_pidfd(pidfd: OwnedFd) -> Self {
        Self {
            pidfd,
            is_certain: true,
        }
    }

    pub(super) fn open(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::Unsupported)?;
        let pidfd = call(Call::PidfdOpen, || {
            rustix::process::pidfd_open(pid, PidfdFlags::empty())
        })?;
        Ok(Self {
            pidfd,
            is_certain: false,
        })
    }

    /// Returns `true` if the kernel has pinned the process when it connected, and `false` if it only could be opened by its number
    /// afterwards (before Linux 6.5): then it may be another process that was given the number.
    pub fn is_certain(&self) -> bool {
        self.is_certain
    }

    /// Returns `true` if the process has ended, whether or not its parent has noticed.
    ///
    /// # Errors
    ///
    /// None that the caller can do something about.
    pub fn has_exited(&self) -> io::Result<bool> {
        let shown = poll_now(self.pidfd.as_fd(), PollFlags::IN)?;
        Ok(!shown.is_empty())
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    ///
    /// None that the caller can do something about.
    pub fn wait(&self, deadline: Option<Instant>) -> io::Result<Woken> {
        let shown = poll_one(self.pidfd.as_fd(), PollFlags::IN, deadline)?;
        Ok(shown.map_or(Woken::Deadline, |_| Woken::Notified))
    }
}

impl AsFd for ProcessHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl AsRawFd for ProcessHandle {
    fn as_raw_fd(&self) -> RawFd {
        self.pidfd.as_raw_fd()
    }
}
