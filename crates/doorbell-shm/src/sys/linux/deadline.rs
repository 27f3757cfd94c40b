//! Deadlines as the kernel wants them, and waiting for one descriptor.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::time::ClockId;

use super::call::{Call, call, call_once};

/// Returns the time left until `deadline`; nothing is left of one that has passed.
pub(super) fn time_left(deadline: Instant) -> Timespec {
    timespec(deadline.saturating_duration_since(Instant::now()))
}

/// Returns `deadline` on the kernel's monotonic clock, or `None` if that clock never gets there.
///
/// [`Instant`] hides its number, so the remaining time is added to a second reading of the clock. The error is the
/// time between the two readings and always delays.
pub(super) fn monotonic(deadline: Instant) -> Option<Timespec> {
    let left = time_left(deadline);
    rustix::time::clock_gettime(ClockId::Monotonic).checked_add(left)
}

/// Waits until `fd` shows one of `interest` (or an error or hang-up) and returns what it shows, or `None` at the
/// deadline.
pub(super) fn poll_one(
    fd: BorrowedFd<'_>,
    interest: PollFlags,
    deadline: Option<Instant>,
) -> io::Result<Option<PollFlags>> {
    let mut polled = [PollFd::from_borrowed_fd(fd, interest)];
    loop {
        let timeout = deadline.map(time_left);
        let shown = call_once(Call::Poll, || {
            rustix::event::poll(&mut polled, timeout.as_ref())
        });
        match shown {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(polled[0].revents())),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Returns what `fd` shows now.
pub(super) fn poll_now(fd: BorrowedFd<'_>, interest: PollFlags) -> io::Result<PollFlags> {
    let mut polled = [PollFd::from_borrowed_fd(fd, interest)];
    let at_once = timespec(Duration::ZERO);
    call(Call::Poll, || {
        rustix::event::poll(&mut polled, Some(&at_once))
    })?;
    Ok(polled[0].revents())
}

pub(super) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}
