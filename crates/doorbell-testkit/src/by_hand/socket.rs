//! The control socket.

use std::{
    io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    net::Shutdown,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::Duration,
};

use rustix::event::{PollFd, PollFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use super::wire::{HandHello, HandWelcome, MAGIC};
use crate::PATIENCE;

/// One end of a control socket. Calls block, for at most [`PATIENCE`].
#[derive(Debug)]
pub struct HandSocket(pub UnixStream);

/// What a server says to a hello.
#[derive(Debug)]
pub enum Answer {
    /// The connection stands.
    Welcome(HandWelcome, Vec<OwnedFd>),
    /// It said no.
    Refused {
        /// Its reason.
        reason: u16,
        /// Its words.
        text: String,
    },
    /// The socket was closed without a word.
    Closed,
}

impl HandSocket {
    /// Connects.
    ///
    /// # Panics
    ///
    /// If nobody listens.
    pub fn connect(path: &Path) -> Self {
        Self::try_connect(path).expect("a server listens")
    }

    /// Connects if somebody listens.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn try_connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        Ok(Self::new(stream))
    }

    pub(super) fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
        Self(stream)
    }

    /// Writes bytes. Returns `false` if the other side is gone.
    ///
    /// # Panics
    ///
    /// If it neither reads nor leaves.
    pub fn send(&self, bytes: &[u8]) -> bool {
        match (&self.0).write_all(bytes) {
            Ok(()) => true,
            Err(error) if is_gone(&error) => false,
            Err(error) => panic!("cannot write: {error}"),
        }
    }

    /// Writes bytes with descriptors beside the first.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn send_with(&self, bytes: &[u8], handles: &[BorrowedFd<'_>]) -> io::Result<usize> {
        let rights = SendAncillaryMessage::ScmRights(handles);
        let mut space = vec![MaybeUninit::uninit(); rights.size()];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(rights), "there is room");
        let parts = [IoSlice::new(bytes)];
        Ok(rustix::net::sendmsg(
            &self.0,
            &parts,
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )?)
    }

    /// Says that nothing more will come, and goes on listening.
    ///
    /// # Panics
    ///
    /// Never: a socket that is closed already does not mind.
    pub fn stop_talking(&self) {
        let _ = self.0.shutdown(Shutdown::Write);
    }

    /// Sends a hello and waits for what the server says.
    ///
    /// # Panics
    ///
    /// If it says nothing.
    pub fn greet(&self, hello: &HandHello) -> Answer {
        self.send(&hello.bytes());
        self.answer()
    }

    /// Returns `true` if the server says something, or leaves, before so much time is over.
    ///
    /// # Panics
    ///
    /// If the socket cannot be looked at.
    pub fn is_answered_within(&self, time: Duration) -> bool {
        let mut looked = [PollFd::new(&self.0, PollFlags::IN)];
        let time = time.try_into().expect("a short time");
        rustix::event::poll(&mut looked, Some(&time)).expect("a socket") > 0
    }

    /// Waits for what the server says.
    ///
    /// # Panics
    ///
    /// If it says nothing, or what the specification does not have.
    pub fn answer(&self) -> Answer {
        let mut handles = Vec::new();
        let Some(head) = self.receive(13, &mut handles) else {
            return Answer::Closed;
        };
        assert_eq!(&head[..8], MAGIC);
        let length = u32::from_le_bytes(head[8..12].try_into().expect("four"));
        let fields = self
            .receive(length as usize - 1, &mut handles)
            .expect("the rest of it");
        match head[12] {
            2 => Answer::Welcome(HandWelcome::read(&fields), handles),
            3 => Answer::Refused {
                reason: u16::from_le_bytes([fields[0], fields[1]]),
                text: String::from_utf8(fields[8..].to_vec()).expect("UTF-8"),
            },
            other => panic!("a message of kind {other}"),
        }
    }

    /// Waits for so many bytes. Returns `None` if the other side is gone before the first.
    ///
    /// # Panics
    ///
    /// If it is gone in the middle, or says nothing.
    pub fn receive(&self, count: usize, handles: &mut Vec<OwnedFd>) -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        let mut filled = 0;
        while filled < count {
            match self.receive_some(&mut bytes[filled..], handles) {
                Ok(0) if filled == 0 => return None,
                Ok(0) => panic!("it left in the middle of a message"),
                Ok(more) => filled += more,
                Err(error) if is_gone(&error) => return None,
                Err(error) => panic!("nothing came: {error}"),
            }
        }
        Some(bytes)
    }

    fn receive_some(&self, buffer: &mut [u8], handles: &mut Vec<OwnedFd>) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let message = rustix::net::recvmsg(&self.0, &mut parts, &mut ancillary, flags)?;
        for part in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = part {
                handles.extend(more);
            }
        }
        Ok(message.bytes)
    }

    /// Waits until the other side has closed the socket, whatever it says before.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub fn wait_for_end(&self) {
        let mut rest = [0; 1024];
        loop {
            match (&self.0).read(&mut rest) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if is_gone(&error) => return,
                Err(error) => panic!("the socket stays open: {error}"),
            }
        }
    }
}

impl AsFd for HandSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
    )
}
