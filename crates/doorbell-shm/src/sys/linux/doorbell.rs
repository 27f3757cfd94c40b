//! Doorbells: an eventfd, or a byte through a socket.
//!
//! An eventfd is one open file in two processes, and `O_NONBLOCK` belongs to the open file: a peer can clear it.
//! Reading is safe from that, because a read can ask not to wait (`RWF_NOWAIT`); writing has no such request, so a
//! hostile peer can fill the counter, clear the flag, and so stop our `notify`. That is why peers of another user get
//! a socket: there each call says for itself that it must not wait, and each end is an open file of its own.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Instant;

use rustix::event::{EventfdFlags, PollFlags};
use rustix::fs::OFlags;
use rustix::io::{Errno, ReadWriteFlags};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType};

use super::call::{Call, call};
use super::deadline::poll_one;
use super::socket_options::refuse_handles;
use super::stream::stream_pair;
use super::{BorrowedHandle, OwnedHandle, duplicate};
use crate::sys::{DoorbellKind, Woken};

/// One end of a doorbell: it wakes one sleeper, here or in another process.
#[derive(Debug)]
pub struct Doorbell {
    fd: OwnedFd,
    kind: DoorbellKind,
}

impl Doorbell {
    /// Creates a doorbell: the end that listens, and the end that rings.
    ///
    /// # Errors
    ///
    /// `EMFILE` when the process has no descriptor left.
    pub fn pair(kind: DoorbellKind) -> io::Result<(Self, Self)> {
        let (listening, ringing) = match kind {
            DoorbellKind::Event => event_pair()?,
            DoorbellKind::Socket => socket_pair()?,
        };
        Ok((
            Self {
                fd: listening,
                kind,
            },
            Self { fd: ringing, kind },
        ))
    }

    /// Takes an end that a peer has sent, if it is an object of that kind.
    ///
    /// # Errors
    ///
    /// `InvalidData` when it is something else.
    pub fn from_handle(handle: OwnedHandle, kind: DoorbellKind) -> io::Result<Self> {
        match kind {
            DoorbellKind::Event => check_event(&handle)?,
            DoorbellKind::Socket => check_socket(&handle)?,
        }
        Ok(Self { fd: handle, kind })
    }

    /// Returns the object behind this end.
    pub fn kind(&self) -> DoorbellKind {
        self.kind
    }

    /// Returns the handle, to be sent to the peer.
    pub fn as_handle(&self) -> BorrowedHandle<'_> {
        self.fd.as_fd()
    }

    /// Gives up this end for its handle.
    pub fn into_handle(self) -> OwnedHandle {
        self.fd
    }

    /// Wakes the listening end, now or when it next waits. Never blocks (but see the module about a hostile peer's
    /// [`Event`](DoorbellKind::Event)).
    ///
    /// # Errors
    ///
    /// `BrokenPipe` or `ConnectionReset` when the listening end of a [`Socket`](DoorbellKind::Socket) is gone; an
    /// [`Event`](DoorbellKind::Event) does not tell.
    pub fn notify(&self) -> io::Result<()> {
        crate::failpoint!("bell.before");
        let written = match self.kind {
            DoorbellKind::Event => call(Call::Write, || {
                rustix::io::write(&self.fd, &1_u64.to_ne_bytes())
            }),
            DoorbellKind::Socket => call(Call::Send, || {
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                rustix::net::send(&self.fd, &[1], flags)
            }),
        };
        crate::failpoint!("bell.after");
        match written {
            Ok(_) | Err(Errno::AGAIN) => Ok(()), // full: it is rung already
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for a notify, and takes it (and all others) away.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` when the ringing end of a [`Socket`](DoorbellKind::Socket) is closed and every notify taken.
    pub fn wait(&self, deadline: Option<Instant>) -> io::Result<Woken> {
        loop {
            if poll_one(self.fd.as_fd(), PollFlags::IN, deadline)?.is_none() {
                return Ok(Woken::Deadline);
            }
            // Somebody else may have drained it since: then go on waiting.
            if self.drain_some()? {
                return Ok(Woken::Notified);
            }
        }
    }

    /// Takes all notifies away. Never blocks.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` when the ringing end of a [`Socket`](DoorbellKind::Socket) is closed and every notify taken.
    pub fn drain(&self) -> io::Result<()> {
        self.drain_some().map(drop)
    }

    /// Sees to it that the next notify is an edge for a [`Poller`](super::Poller) again, and returns whether there has been one. Never blocks.
    ///
    /// Each notify of an [`Event`](DoorbellKind::Event) is an edge, and nothing is done. A full [`Socket`](DoorbellKind::Socket) takes no
    /// more: a few bytes are read. If it fills up again, that is an edge. Reading all of them would be an invitation, for a hostile ringer
    /// can send them as fast as they are read, each in a buffer of the kernel's.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` when the ringing end of a [`Socket`](DoorbellKind::Socket) is closed and every notify taken.
    pub fn make_room(&self) -> io::Result<bool> {
        match self.kind {
            DoorbellKind::Event => Ok(true),
            DoorbellKind::Socket => Ok(self.receive::<ROOM_BYTES>()?.is_some()),
        }
    }

    /// Returns `true` if there was a notify.
    fn drain_some(&self) -> io::Result<bool> {
        match self.kind {
            DoorbellKind::Event => self.drain_event(),
            DoorbellKind::Socket => self.drain_socket(),
        }
    }

    fn drain_event(&self) -> io::Result<bool> {
        let mut counter = [0; 8];
        let read = call(Call::Preadv, || {
            let mut buffers = [IoSliceMut::new(&mut counter)];
            rustix::io::preadv2(&self.fd, &mut buffers, NO_OFFSET, ReadWriteFlags::NOWAIT)
        });
        match read {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn drain_socket(&self) -> io::Result<bool> {
        for reads in 0..MAX_DRAIN_READS {
            match self.receive::<DRAIN_BYTES>() {
                Ok(Some(DRAIN_BYTES)) => {}
                Ok(Some(_)) => return Ok(true),
                Ok(None) => return Ok(reads > 0),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && reads > 0 => {
                    return Ok(true);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Reads from a socket, up to so many bytes; `None` if there were none.
    fn receive<const MOST: usize>(&self) -> io::Result<Option<usize>> {
        let mut bytes = [0; MOST];
        // Descriptors that come along are closed by the kernel: we offer no room for them.
        let read = call(Call::Recv, || {
            rustix::net::recv(&self.fd, &mut bytes, RecvFlags::DONTWAIT)
        });
        match read {
            Ok((_, 0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((_, count)) => Ok(Some(count)),
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Doorbell {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

fn event_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    // A plain counter: one read takes all notifies. (A semaphore would take one read for each.)
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let listening = call(Call::Eventfd, || rustix::event::eventfd(0, flags))?;
    let ringing = duplicate(&listening)?;
    Ok((listening, ringing))
}

fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    // A stream, because one read takes many bytes, and because its end of file tells that the peer is gone.
    let (listening, ringing) = stream_pair()?;
    refuse_handles(listening.as_fd());
    refuse_handles(ringing.as_fd());
    Ok((listening, ringing))
}

fn check_event(fd: &OwnedFd) -> io::Result<()> {
    let stat = call(Call::Fstat, || rustix::fs::fstat(fd))?;
    if stat.st_mode & FILE_TYPE_BITS != 0 {
        return Err(invalid_data("doorbell is a file, not an event counter"));
    }
    let flags = call(Call::GetFlags, || rustix::fs::fcntl_getfl(fd))?;
    if !flags.contains(OFlags::NONBLOCK) {
        return Err(invalid_data("doorbell is an event counter that blocks"));
    }
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    match call(Call::Readlink, || rustix::fs::readlink(&link, Vec::new())) {
        Ok(name) if name.as_bytes() != EVENTFD_NAME => {
            Err(invalid_data("doorbell is not an event counter"))
        }
        // Without /proc the checks above have to do: whoever gets an event counter is of our own user.
        Ok(_) | Err(_) => Ok(()),
    }
}

fn check_socket(fd: &OwnedFd) -> io::Result<()> {
    let domain = call(Call::Getsockopt, || rustix::net::sockopt::socket_domain(fd));
    let kind = call(Call::Getsockopt, || rustix::net::sockopt::socket_type(fd));
    match (domain, kind) {
        (Ok(AddressFamily::UNIX), Ok(SocketType::STREAM)) => Ok(()),
        (Ok(_), Ok(_)) | (Err(Errno::NOTSOCK), _) => {
            Err(invalid_data("doorbell is not a stream socket"))
        }
        (Err(error), _) | (_, Err(error)) => Err(error.into()),
    }
}

fn invalid_data(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// `preadv2` reads at the current position, which an event counter does not have.
const NO_OFFSET: u64 = u64::MAX;

/// The bits of a mode that tell the file type. Anonymous inodes such as an eventfd have none.
const FILE_TYPE_BITS: u32 = 0o170_000;

const EVENTFD_NAME: &[u8] = b"anon_inode:[eventfd]";

/// A peer in order rings once for each time that we sleep. One that floods makes each of these bytes cost a microsecond, for its buffer is freed
/// while the next is sent.
const ROOM_BYTES: usize = 4;

/// A ringer's socket buffer holds a few hundred single bytes (each costs a buffer of the kernel), so one read is the
/// rule.
const DRAIN_BYTES: usize = 1024;

/// A hostile ringer may refill the socket as fast as we read. What is left over costs only itself a wake-up.
const MAX_DRAIN_READS: usize = 256;
