//! Who the peer is, and when its process ends.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Instant;

use rustix::event::PollFlags;
use rustix::process::{Pid, PidfdFlags};

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
        std::fs::read_link(format!("/proc/{}/exe", self.pid)).ok()
    }
}

/// A process, pinned: its number may be given to another one, this handle never means another one.
#[derive(Debug)]
pub struct ProcessHandle(OwnedFd);

impl ProcessHandle {
    pub(super) fn from_pidfd(pidfd: OwnedFd) -> Self {
        Self(pidfd)
    }

    pub(super) fn open(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::Unsupported)?;
        Ok(Self(rustix::process::pidfd_open(pid, PidfdFlags::empty())?))
    }

    /// Returns `true` if the process has ended, whether or not its parent has noticed.
    ///
    /// # Errors
    ///
    /// None that the caller can do something about.
    pub fn has_exited(&self) -> io::Result<bool> {
        let shown = poll_now(self.0.as_fd(), PollFlags::IN)?;
        Ok(!shown.is_empty())
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    ///
    /// None that the caller can do something about.
    pub fn wait(&self, deadline: Option<Instant>) -> io::Result<Woken> {
        let shown = poll_one(self.0.as_fd(), PollFlags::IN, deadline)?;
        Ok(shown.map_or(Woken::Deadline, |_| Woken::Notified))
    }
}

impl AsFd for ProcessHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for ProcessHandle {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
