//! Waiting for many sources: epoll.
//!
//! A doorbell that is an eventfd and added with [`Mode::Edge`] needs no reading: each write is a new edge. The poller
//! relies on that for its own [`wake`](Poller::wake).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::call::{Call, call, call_once};
use super::deadline::{time_left, timespec};
use super::{ControlStream, Doorbell, Listener, ProcessHandle};
use crate::sys::{DoorbellKind, Event, Mode, Wait};

/// Waits for many [`Source`]s at once. One thread waits; any thread may add, remove and [`wake`](Self::wake).
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
    waker: Doorbell,
}

/// What can be added to a [`Poller`]. Dropping a source removes it, provided that no other handle of it is open.
pub trait Source: sealed::Sealed {}

impl<T: sealed::Sealed> Source for T {}

impl Poller {
    /// Creates a poller without sources.
    ///
    /// # Errors
    ///
    /// `EMFILE` when the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let epoll = call(Call::EpollCreate, || {
            rustix::event::epoll::create(CreateFlags::CLOEXEC)
        })?;
        let (waker, _) = Doorbell::pair(DoorbellKind::Event)?;
        let poller = Self { epoll, waker };
        poller.add_unchecked(&poller.waker, WAKE_TOKEN, Mode::Edge)?;
        Ok(poller)
    }

    /// Starts watching `source`; its events carry `token`. A source that is ready now is reported by the next
    /// [`wait`](Self::wait).
    ///
    /// # Errors
    ///
    /// `AlreadyExists` when it is being watched; `InvalidInput` for the token `u64::MAX`, which is taken.
    pub fn add(&self, source: &impl Source, token: u64, mode: Mode) -> io::Result<()> {
        if token == WAKE_TOKEN {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("token {token} is taken by the poller itself"),
            ));
        }
        self.add_unchecked(source, token, mode)
    }

    /// Stops watching `source`. An event that was already collected may still be returned by a concurrent
    /// [`wait`](Self::wait).
    ///
    /// # Errors
    ///
    /// `NotFound` when it is not being watched.
    pub fn remove(&self, source: &impl Source) -> io::Result<()> {
        Ok(call(Call::EpollDelete, || {
            rustix::event::epoll::delete(&self.epoll, source.descriptor())
        })?)
    }

    /// Replaces the contents of `events` by what has happened, at most 256 at a time.
    ///
    /// Returns without events at the time limit and after [`wake`](Self::wake).
    ///
    /// # Errors
    ///
    /// None that the caller can do something about.
    pub fn wait(&self, events: &mut Vec<Event>, limit: Wait) -> io::Result<()> {
        events.clear();
        let mut space = [MaybeUninit::uninit(); MAX_EVENTS];
        loop {
            let waited = self.wait_finely(limit).and_then(|limit| {
                call_once(Call::EpollWait, || {
                    rustix::event::epoll::wait(&self.epoll, &mut space, limit.as_ref())
                })
            });
            match waited {
                Ok((seen, _)) => {
                    let of_sources = seen.iter().filter(|event| event.data.u64() != WAKE_TOKEN);
                    events.extend(of_sources.map(translate));
                    return Ok(());
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Ends the current [`wait`](Self::wait), or the next one.
    ///
    /// # Errors
    ///
    /// None that the caller can do something about.
    pub fn wake(&self) -> io::Result<()> {
        self.waker.notify()
    }

    /// Waits until a deadline, by `ppoll`: `epoll_pwait` counts in milliseconds, and `epoll_pwait2` is younger than what seccomp profiles and valgrind
    /// may know. Returns how long `epoll_pwait` is to wait then.
    fn wait_finely(&self, limit: Wait) -> Result<Option<Timespec>, Errno> {
        match limit {
            Wait::Forever => return Ok(None),
            Wait::Poll => {}
            Wait::Until(deadline) => {
                let mut epoll = [PollFd::new(&self.epoll, PollFlags::IN)];
                let left = time_left(deadline);
                call_once(Call::EpollWait, || {
                    rustix::event::poll(&mut epoll, Some(&left))
                })?;
            }
        }
        Ok(Some(timespec(Duration::ZERO)))
    }

    fn add_unchecked(&self, source: &impl Source, token: u64, mode: Mode) -> io::Result<()> {
        let mut interest = EventFlags::IN | EventFlags::RDHUP;
        if mode == Mode::Edge {
            interest |= EventFlags::ET;
        }
        let data = EventData::new_u64(token);
        Ok(call(Call::EpollAdd, || {
            rustix::event::epoll::add(&self.epoll, source.descriptor(), data, interest)
        })?)
    }
}

fn translate(event: &rustix::event::epoll::Event) -> Event {
    let flags = event.flags; // a copy: the kernel's struct is packed
    Event {
        token: event.data.u64(),
        readable: flags.contains(EventFlags::IN),
        hung_up: flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR),
    }
}

mod sealed {
    use std::os::fd::BorrowedFd;

    /// What a [`Source`](super::Source) is to the kernel.
    pub trait Sealed {
        fn descriptor(&self) -> BorrowedFd<'_>;
    }
}

/// Makes types with a descriptor into sources.
macro_rules! sources {
    ($($source:ty),+) => {
        $(impl sealed::Sealed for $source {
            fn descriptor(&self) -> BorrowedFd<'_> {
                self.as_fd()
            }
        })+
    };
}

sources!(
    Doorbell,
    Listener,
    ControlStream,
    Arc<ControlStream>,
    ProcessHandle
);

/// Events taken from the kernel at once: 3 KiB of stack.
const MAX_EVENTS: usize = 256;

const WAKE_TOKEN: u64 = u64::MAX;
