//! The control stream: a Unix stream socket that carries the handshake and then shows the peer's death.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::sockopt::Timeout;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

use super::call::{Call, call, call_once};
use super::deadline::{poll_now, poll_one};
use super::socket_options::{peer_credentials, peer_pidfd};
use super::{BorrowedHandle, OwnedHandle, PeerIdentity, ProcessHandle};
use crate::sys::Woken;

/// One end of a byte stream between two processes. No call blocks, except `connect` and those named `wait`.
#[derive(Debug)]
pub struct ControlStream(OwnedFd);

impl ControlStream {
    /// Connects to the server that listens at `path`.
    ///
    /// A server with a full backlog makes this wait until it accepts somebody: in the kernel, which wakes us then, so
    /// nothing is tried again and again.
    ///
    /// # Errors
    ///
    /// `NotFound` and `ConnectionRefused` when nobody listens (yet); `PermissionDenied`; `TimedOut` at the deadline;
    /// `InvalidInput` for a path that is too long for a socket.
    pub fn connect(path: &Path, deadline: Option<Instant>) -> io::Result<Self> {
        let address = socket_address(path)?;
        let socket = stream_socket(SocketFlags::CLOEXEC)?;
        loop {
            let left = deadline.map(send_timeout);
            call(Call::Setsockopt, || {
                rustix::net::sockopt::set_socket_timeout(&socket, Timeout::Send, left)
            })?;
            match call_once(Call::Connect, || rustix::net::connect(&socket, &address)) {
                Ok(()) => break,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(timed_out(path)),
                Err(error) => return Err(error.into()),
            }
        }
        call(Call::Ioctl, || rustix::io::ioctl_fionbio(&socket, true))?;
        Ok(Self(socket))
    }

    /// Creates two connected ends.
    ///
    /// # Errors
    ///
    /// `EMFILE` when the process has no descriptor left.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = stream_pair()?;
        Ok((Self(one), Self(other)))
    }

    pub(super) fn from_accepted(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Sends the beginning of `bytes` and returns its length.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when the peer does not read; `BrokenPipe` or `ConnectionReset` when it is gone.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(call(Call::Send, || {
            rustix::net::send(&self.0, bytes, SEND_FLAGS)
        })?)
    }

    /// Sends the beginning of `bytes` and, in one message with it, all `handles`; returns the length sent.
    ///
    /// When that is less than `bytes`, the handles are on their way and the rest is for [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send), and nothing was sent; `InvalidInput` without bytes or for more than 253 handles;
    /// `PermissionDenied` when the peer accepts none.
    pub fn send_with_handles(
        &self,
        bytes: &[u8],
        handles: &[BorrowedHandle<'_>],
    ) -> io::Result<usize> {
        if bytes.is_empty() || handles.len() > MAX_HANDLES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "cannot send {} handles with {} bytes",
                    handles.len(),
                    bytes.len()
                ),
            ));
        }
        let rights = SendAncillaryMessage::ScmRights(handles);
        let mut space = vec![MaybeUninit::uninit(); rights.size()];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fits = control.push(rights);
        debug_assert!(fits, "the space was made for this message");
        Ok(call(Call::Sendmsg, || {
            rustix::net::sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, SEND_FLAGS)
        })?)
    }

    /// Receives at most `buffer.len()` bytes; 0 means that the peer has closed its end. Accepts no handles.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when nothing is there; `ConnectionReset` when the peer closed with our bytes unread;
    /// `InvalidData` when the peer sent handles, which are closed.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // Without room for them the kernel closes the handles itself.
        let (length, flags) = self.receive_message(buffer, &mut RecvAncillaryBuffer::default())?;
        if flags.contains(ReturnFlags::CTRUNC) {
            return Err(invalid_data("peer sent handles where none belong"));
        }
        Ok(length)
    }

    /// Receives at most `buffer.len()` bytes, and the handles that came with them, at most `max`.
    ///
    /// # Errors
    ///
    /// As [`receive`](Self::receive); `InvalidData` when there were more than `max` handles, `EMFILE` when some were lost because this
    /// process has no descriptor left. All that came are closed then.
    pub fn receive_with_handles(
        &self,
        buffer: &mut [u8],
        max: usize,
    ) -> io::Result<(usize, Vec<OwnedHandle>)> {
        let mut space = vec![MaybeUninit::uninit(); control_space(max)];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let (length, flags) = self.receive_message(buffer, &mut control)?;
        let handles: Vec<OwnedHandle> = control.drain().flat_map(rights).collect();
        if flags.contains(ReturnFlags::CTRUNC) {
            // There was room for more than came, so it was not the peer who sent too many.
            if handles.len() < max {
                return Err(Errno::MFILE.into());
            }
            return Err(invalid_data(
                "peer sent more handles than could be received",
            ));
        }
        // Padding gives room for one more than was asked for.
        if handles.len() > max {
            return Err(invalid_data("peer sent more handles than expected"));
        }
        Ok((length, handles))
    }

    fn receive_message(
        &self,
        buffer: &mut [u8],
        control: &mut RecvAncillaryBuffer<'_>,
    ) -> io::Result<(usize, ReturnFlags)> {
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let message = call(Call::Recvmsg, || {
            let mut buffers = [IoSliceMut::new(buffer)];
            rustix::net::recvmsg(&self.0, &mut buffers, control, flags)
        })?;
        Ok((message.bytes, message.flags))
    }

    /// Waits until [`receive`](Self::receive) has something to say: bytes, the end, or an error.
    ///
    /// # Errors
    ///
    /// None that the caller can do something about.
    pub fn wait_readable(&self, deadline: Option<Instant>) -> io::Result<Woken> {
        self.wait(PollFlags::IN, deadline)
    }

    /// Waits until [`send`](Self::send) can send something, or fails.
    ///
    /// # Errors
    ///
    /// None that the caller can do something about.
    pub fn wait_writable(&self, deadline: Option<Instant>) -> io::Result<Woken> {
        self.wait(PollFlags::OUT, deadline)
    }

    fn wait(&self, interest: PollFlags, deadline: Option<Instant>) -> io::Result<Woken> {
        let shown = poll_one(self.0.as_fd(), interest, deadline)?;
        Ok(shown.map_or(Woken::Deadline, |_| Woken::Notified))
    }

    /// Returns `true` if the peer has closed its end, also while bytes from it are still unread.
    ///
    /// A process that the peer forked may keep the end open; see [`peer_process`](Self::peer_process).
    ///
    /// # Errors
    ///
    /// None that the caller can do something about.
    pub fn is_hung_up(&self) -> io::Result<bool> {
        let shown = poll_now(self.0.as_fd(), PollFlags::RDHUP)?;
        Ok(!shown.is_empty()) // hang-ups and errors are always shown
    }

    /// Returns who the peer was when the connection was made.
    ///
    /// # Errors
    ///
    /// None that the caller can do something about.
    pub fn peer(&self) -> io::Result<PeerIdentity> {
        let (pid, uid, gid) = peer_credentials(self.0.as_fd())?;
        Ok(PeerIdentity { pid, uid, gid })
    }

    /// Returns a handle of the process that the peer was when the connection was made.
    ///
    /// Before Linux 6.5 there is a gap: if that process has died meanwhile and its number was given to another one,
    /// the handle is the other one's. The control stream then still shows the hang-up.
    ///
    /// # Errors
    ///
    /// `ESRCH` when the process has exited and was waited for; `Unsupported` when it is out of our sight.
    pub fn peer_process(&self) -> io::Result<ProcessHandle> {
        match peer_pidfd(self.0.as_fd()) {
            Ok(fd) => Ok(ProcessHandle::from_pidfd(fd)),
            Err(error) if error.raw_os_error() == Some(Errno::NOPROTOOPT.raw_os_error()) => {
                ProcessHandle::open(self.peer()?.pid)
            }
            Err(error) => Err(error),
        }
    }
}

impl AsFd for ControlStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for ControlStream {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Makes a stream socket that is connected to nothing.
pub(super) fn stream_socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(call(Call::Socket, || {
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
    })?)
}

/// Makes two stream sockets that are connected to each other.
pub(super) fn stream_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(call(Call::Socketpair, || {
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
    })?)
}

/// Returns the address for `path`, if it fits.
pub(super) fn socket_address(path: &Path) -> io::Result<SocketAddrUnix> {
    let length = path.as_os_str().len();
    if length > MAX_PATH_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("socket path has {length} bytes, at most {MAX_PATH_BYTES} fit"),
        ));
    }
    if length == 0 {
        // The kernel would take it as a request for a name of its own choice.
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "socket path is empty",
        ));
    }
    Ok(SocketAddrUnix::new(path)?)
}

/// Returns the time left as a socket timeout, which must not be zero: that would mean "no limit".
fn send_timeout(deadline: Instant) -> Duration {
    deadline
        .saturating_duration_since(Instant::now())
        .max(Duration::from_micros(1))
}

fn rights(message: RecvAncillaryMessage<'_>) -> impl Iterator<Item = OwnedFd> {
    match message {
        RecvAncillaryMessage::ScmRights(handles) => Some(handles),
        _ => None,
    }
    .into_iter()
    .flatten()
}

fn control_space(handles: usize) -> usize {
    rustix::cmsg_space!(ScmRights(handles.min(MAX_HANDLES)))
}

fn timed_out(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        format!("server at {} accepts nobody", path.display()),
    )
}

fn invalid_data(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

const SEND_FLAGS: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// `SCM_MAX_FD` of the kernel: handles that one message can carry.
const MAX_HANDLES: usize = 253;

/// Length of `sun_path` without its terminating zero.
pub(super) const MAX_PATH_BYTES: usize = 107;
