//! Two rings with their doorbells between two processes, made by a handshake over a Unix socket.
//!
//! The server makes all memory and accepts no descriptor; the client checks everything it is handed before it maps it. The
//! messages are in `docs/handshake.md`. Once a [`Link`] exists the socket carries nothing more: that it ends, or that the peer's
//! process does, is how death is seen.

pub(crate) mod accept;
pub(crate) mod dial;

use std::io;

use doorbell_proto::{
    connection::{Config, Role},
    handshake::{BellKind, BellKinds, Features, Hello, Welcome},
    limits,
};
use doorbell_shm::{
    Announcer, Consumer, Notifier, OwnRegion, PeerRegion, Producer,
    sys::{ControlStream, Doorbell, DoorbellKind, PeerIdentity, ProcessHandle},
};

/// One side of an established connection, before anything is sent.
pub(crate) struct Link {
    pub(crate) role: Role,
    pub(crate) own: OwnRegion,
    pub(crate) peer: PeerRegion,
    /// Rung by the peer.
    pub(crate) bell: Doorbell,
    /// Rung by us.
    pub(crate) peer_bell: Doorbell,
    pub(crate) control: ControlStream,
    pub(crate) process: Option<ProcessHandle>,
    pub(crate) identity: PeerIdentity,
    pub(crate) terms: Terms,
}

/// What the handshake agreed on, seen from one side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// Calls that may be under way at once.
    pub(crate) max_calls: u32,
    /// Largest message that we accept.
    pub(crate) accepted_message_bytes: u64,
    /// Largest message that the peer accepts.
    pub(crate) sent_message_bytes: u64,
    pub(crate) receive_window_bytes: u32,
    pub(crate) send_window_bytes: u32,
    /// Largest body of one frame.
    pub(crate) max_chunk_bytes: u32,
    /// Whether bodies carry a checksum.
    pub(crate) body_crc: bool,
    /// Whether large payloads may be lent.
    pub(crate) loans: bool,
    /// Whether the server says when it is quiet.
    pub(crate) gives_back: bool,
}

impl Terms {
    /// Returns `true` if a body of so many bytes carries a checksum: 95 ns at 4 KiB with SSE4.2. Larger ones rely on the memory being what it is.
    #[inline]
    pub(crate) fn covers(&self, body_bytes: usize) -> bool {
        self.body_crc && body_bytes > 0 && body_bytes <= BODY_CRC_BYTES
    }

    /// Returns the configuration of the protocol machine for `role`.
    pub(crate) fn machine(&self, role: Role, max_assembly_bytes: u64) -> Config {
        Config {
            role,
            max_calls: self.max_calls,
            max_message_bytes: self.accepted_message_bytes,
            max_assembly_bytes,
            max_chunk_bytes: self.max_chunk_bytes,
            receive_window_bytes: self.receive_window_bytes,
            send_window_bytes: self.send_window_bytes,
            loans: self.loans,
            gives_back: self.gives_back,
        }
    }

    fn new(role: Role, hello: &Hello, welcome: &Welcome) -> Self {
        let server = matches!(role, Role::Server);
        let pick = |of_server, of_client| {
            if server {
                (of_server, of_client)
            } else {
                (of_client, of_server)
            }
        };
        let (receive_window_bytes, send_window_bytes) =
            pick(welcome.receive_window_bytes, hello.receive_window_bytes);
        let (accepted, sent) = if server {
            (welcome.max_message_bytes, hello.max_message_bytes)
        } else {
            (hello.max_message_bytes, welcome.max_message_bytes)
        };
        Self {
            max_calls: welcome.max_calls,
            accepted_message_bytes: accepted,
            sent_message_bytes: sent,
            receive_window_bytes,
            send_window_bytes,
            max_chunk_bytes: welcome.max_chunk_bytes,
            body_crc: welcome.features.contains(Features::BODY_CRC),
            loans: welcome.features.contains(Features::LOANS),
            gives_back: welcome.features.contains(Features::GIVE_BACK),
        }
    }
}

impl Link {
    pub(crate) fn rings(&self) -> (Producer, Consumer) {
        (
            Producer::new(self.own.clone(), self.peer.clone()),
            Consumer::new(self.own.clone(), self.peer.clone()),
        )
    }

    pub(crate) fn sleep_words(&self) -> (Announcer, Notifier) {
        (
            Announcer::new(self.own.clone()),
            Notifier::new(self.own.clone(), self.peer.clone()),
        )
    }
}

/// Memory and message sizes that one side wishes for or offers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wishes {
    pub(crate) ring_capacity_bytes: u32,
    pub(crate) receive_window_bytes: u32,
    pub(crate) max_message_bytes: u64,
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            ring_capacity_bytes: limits::DEFAULT_RING_BYTES,
            receive_window_bytes: limits::DEFAULT_WINDOW_BYTES,
            max_message_bytes: limits::DEFAULT_MAX_MESSAGE_BYTES,
        }
    }
}

/// Returns the process at the other end; `None` where the system cannot show it, or forbids it to.
///
/// # Errors
///
/// There is no descriptor or memory for it, or it has ended already. Without it, whoever has inherited its socket could hide its end.
pub(crate) fn process_of(control: &ControlStream) -> io::Result<Option<ProcessHandle>> {
    match control.peer_process() {
        Err(error) if cannot_be_shown(&error) => Ok(None),
        result => result.map(Some),
    }
}

fn cannot_be_shown(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied
    )
}

/// Doorbells that this build can use with such a peer. Whoever holds an event counter can make ringing it block, so that one is for
/// programs of one user, who could stop each other anyway.
fn bells_with(peer: &PeerIdentity) -> BellKinds {
    match DoorbellKind::default_kind() {
        DoorbellKind::Event if peer.is_same_user() => BellKinds::EVENT_FD.with(BellKinds::SOCKET),
        DoorbellKind::Event | DoorbellKind::Socket => BellKinds::SOCKET,
    }
}

/// Features that there can be with such a peer. Giving memory back waits for a lock of the kernel that whoever else has a descriptor of that
/// memory can hold for as long as it likes, so that is for programs of one user, as the event counter is.
fn features_with(peer: &PeerIdentity) -> Features {
    let features = Features::BODY_CRC.with(Features::LOANS);
    if peer.is_same_user() {
        return features.with(Features::GIVE_BACK);
    }
    features
}

fn doorbell_kind(bell: BellKind) -> DoorbellKind {
    match bell {
        BellKind::EventFd => DoorbellKind::Event,
        BellKind::Socket => DoorbellKind::Socket,
    }
}

/// Largest body that carries a checksum.
const BODY_CRC_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use doorbell_proto::frame::{FrameHeader, FrameKind, HEADER_BYTES};

    /// The two crates do not know each other and must agree on this.
    #[test]
    fn ring_and_protocol_agree_on_records() {
        assert_eq!(doorbell_shm::memory::HEADER_BYTES, HEADER_BYTES);
        assert_eq!(FrameKind::from_u8(0), None, "kind 0 is the ring's padding");
        let mut header = FrameHeader::new(FrameKind::Data, 1, 0);
        header.length = 0x0102_0304;
        assert_eq!(
            header.encode()[..4],
            header.length.to_le_bytes(),
            "a record starts with the length of its body"
        );
    }
}
