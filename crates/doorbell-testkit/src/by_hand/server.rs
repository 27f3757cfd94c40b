//! A server, as far as its handshake: what comes with the welcome can be anything.

use std::{
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::{UnixDatagram, UnixListener, UnixStream},
    },
    path::Path,
};

use rustix::{
    event::{EventfdFlags, eventfd},
    fs::{MemfdFlags, SealFlags},
};

use super::{
    socket::HandSocket,
    wire::{HandWelcome, MAGIC},
};

/// Listens where clients expect a server.
#[derive(Debug)]
pub struct HandServer(UnixListener);

/// A client that has said hello, and what it is to be given.
#[derive(Debug)]
pub struct Handed {
    /// The control socket.
    pub socket: HandSocket,
    /// The answer.
    pub welcome: HandWelcome,
    /// What comes with it: the two regions and the two bells, in order to begin with.
    pub handles: Vec<OwnedFd>,
}

impl HandServer {
    /// Listens at `path`.
    ///
    /// # Panics
    ///
    /// If that is not possible.
    pub fn listen(path: &Path) -> Self {
        Self(UnixListener::bind(path).expect("nobody else listens"))
    }

    /// Waits for a client.
    ///
    /// # Panics
    ///
    /// If that is not possible.
    pub fn accept(&self) -> HandSocket {
        let (stream, _) = self.0.accept().expect("a listener");
        HandSocket::new(stream)
    }

    /// Waits for a client and its hello, and prepares an answer that is in order.
    ///
    /// # Panics
    ///
    /// If the client says something else.
    pub fn greet(&self) -> Handed {
        let socket = self.accept();
        let head = socket.receive(13, &mut Vec::new()).expect("a hello");
        assert_eq!((&head[..8], head[12]), (MAGIC.as_slice(), 1));
        let length = u32::from_le_bytes(head[8..12].try_into().expect("four"));
        let fields = socket
            .receive(length as usize - 1, &mut Vec::new())
            .expect("a hello");
        let welcome = HandWelcome::proper(fields[28]);
        let handles = vec![
            Handed::memory(
                Handed::region_bytes(&welcome),
                Handed::seals() | SealFlags::FUTURE_WRITE,
            ),
            Handed::memory(Handed::region_bytes(&welcome), Handed::seals()),
            Handed::bell(welcome.bell),
            Handed::bell(welcome.bell),
        ];
        Handed {
            socket,
            welcome,
            handles,
        }
    }
}

impl Handed {
    /// Sends the answer with the descriptors.
    pub fn send(&self) {
        let handles: Vec<_> = self.handles.iter().map(AsFd::as_fd).collect();
        // A client that has seen enough is gone already.
        let _ = self.socket.send_with(&self.welcome.bytes(), &handles);
    }

    /// Size of a region for what the welcome announces.
    pub fn region_bytes(welcome: &HandWelcome) -> u64 {
        let bytes =
            1024 + u64::from(welcome.server_ring_capacity_bytes) + 4 * u64::from(welcome.max_calls);
        bytes.next_multiple_of(4096)
    }

    /// Seals of the region that the client writes.
    pub fn seals() -> SealFlags {
        SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL
    }

    /// Seals of the region that the server writes.
    pub fn all_seals() -> SealFlags {
        Self::seals() | SealFlags::FUTURE_WRITE
    }

    /// No seals.
    pub fn no_seals() -> SealFlags {
        SealFlags::empty()
    }

    /// Makes memory of that size, with the magic number at its start, and these seals.
    ///
    /// # Panics
    ///
    /// If that is not possible.
    pub fn memory(bytes: u64, seals: SealFlags) -> OwnedFd {
        Self::memory_with(b"DRBLRGN1", bytes, seals)
    }

    /// As [`memory`](Self::memory), with another magic number.
    ///
    /// # Panics
    ///
    /// If that is not possible.
    pub fn memory_with(magic: &[u8; 8], bytes: u64, seals: SealFlags) -> OwnedFd {
        let flags = MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC;
        let memory = rustix::fs::memfd_create("by hand", flags).expect("memory");
        if bytes > 0 {
            rustix::io::pwrite(&memory, magic, 0).expect("memory");
        }
        rustix::fs::ftruncate(&memory, bytes).expect("memory");
        rustix::fs::fcntl_add_seals(&memory, seals).expect("memory");
        memory
    }

    /// Makes a bell of that kind: 1 an event counter, 2 a socket.
    ///
    /// # Panics
    ///
    /// If that is not possible.
    pub fn bell(kind: u8) -> OwnedFd {
        if kind == 1 {
            eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).expect("an event counter")
        } else {
            // Nobody rings or listens at the other end: it goes with this process.
            let (one, other) = UnixStream::pair().expect("sockets");
            std::mem::forget(other);
            one.into()
        }
    }

    /// A descriptor that is no file either, and cannot be rung; of a kind of its own for clients that want a socket.
    ///
    /// # Panics
    ///
    /// If that is not possible.
    pub fn event_queue(kind: u8) -> OwnedFd {
        if kind == 1 {
            let flags = rustix::fs::inotify::CreateFlags::NONBLOCK;
            rustix::fs::inotify::init(flags).expect("a queue")
        } else {
            UnixDatagram::unbound().expect("a socket").into()
        }
    }

    /// As [`bell`](Self::bell), but one that makes those who ring it wait; of a kind of its own for clients that want a socket.
    ///
    /// # Panics
    ///
    /// If that is not possible.
    pub fn blocking_bell(kind: u8) -> OwnedFd {
        if kind == 1 {
            eventfd(0, EventfdFlags::CLOEXEC).expect("an event counter")
        } else {
            UnixDatagram::unbound().expect("a socket").into()
        }
    }
}
