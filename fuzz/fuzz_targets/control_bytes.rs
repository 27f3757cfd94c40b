//! Bytes on the control socket without the socket: in any pieces, to a server with any offer, and to a client with any wishes. The
//! sockets and handles of `control` cost many system calls a run; here there is none.
//!
//! An input says where the pieces end and what we ourselves offer or wish, and then what bytes arrive.

#![no_main]

use arbitrary::Arbitrary;
use doorbell_proto::handshake::{
    BellKinds, Features, HandshakeError, Hello, Message, ServerOffer, VersionRange, Welcome,
    negotiate,
};
use doorbell_proto::limits::MAX_HANDSHAKE_BYTES;
use doorbell_shm::Layout;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    piece_ends: [u8; 4],
    ours: Ours,
    bytes: &'a [u8],
}

/// What this side was configured with, sensible or not.
#[derive(Arbitrary, Debug)]
struct Ours {
    versions: (u16, u16),
    features: u64,
    ring_capacity_bytes: u32,
    max_ring_capacity_bytes: u32,
    max_calls: u32,
    receive_window_bytes: u32,
    max_message_bytes: u64,
    bells: u8,
}

fuzz_target!(|input: Input<'_>| {
    let bytes = &input.bytes[..input.bytes.len().min(MAX_HANDSHAKE_BYTES + 8)];
    let whole = Message::decode(bytes);
    arrive_in_pieces(bytes, &input.piece_ends, &whole);
    let Ok(Some((message, length))) = whole else {
        return;
    };
    assert!(length <= MAX_HANDSHAKE_BYTES);
    assert_eq!(
        message.encode(),
        bytes[..length],
        "one message, one encoding"
    );
    match message {
        Message::Hello(hello) => answer(&hello, &input.ours.offer()),
        Message::Welcome(welcome) => accept(&welcome, &input.ours.hello()),
        Message::Refused(refused) => assert!(!refused.to_string().is_empty()),
    }
});

/// A piece is incomplete, or has decided what the whole is: nobody waits for bytes that cannot matter, nor changes his mind.
fn arrive_in_pieces(
    bytes: &[u8],
    piece_ends: &[u8],
    whole: &Result<Option<(Message, usize)>, HandshakeError>,
) {
    for end in piece_ends {
        let end = bytes.len().min(usize::from(*end));
        match Message::decode(&bytes[..end]) {
            Ok(None) => {}
            decided => assert_eq!(decided, *whole, "decided at {end}"),
        }
    }
}

/// Whatever a client wishes, what a server answers is acceptable to it, and arrives.
fn answer(hello: &Hello, offer: &ServerOffer) {
    let answer = match negotiate(hello, offer) {
        Ok(welcome) => {
            assert_eq!(welcome.check(hello), Ok(()));
            map(&welcome);
            Message::Welcome(welcome)
        }
        Err(refused) => Message::Refused(refused),
    };
    let bytes = answer.encode();
    let length = bytes.len();
    assert_eq!(Message::decode(&bytes), Ok(Some((answer, length))));
}

/// Whatever a server answers, what a client accepts is what it wished, and can be mapped.
fn accept(welcome: &Welcome, hello: &Hello) {
    if welcome.check(hello).is_ok() {
        assert!(hello.versions.contains(welcome.version));
        assert!(hello.features.contains(welcome.features));
        assert!(hello.bells.contains(welcome.bell));
        map(welcome);
    }
}

fn map(welcome: &Welcome) {
    for capacity in [
        welcome.server_ring_capacity_bytes,
        welcome.client_ring_capacity_bytes,
    ] {
        assert!(Layout::new(capacity, welcome.max_calls).is_ok());
        assert!(welcome.max_chunk_bytes + 24 <= capacity / 4);
    }
}

impl Ours {
    fn offer(&self) -> ServerOffer {
        ServerOffer {
            versions: self.versions(),
            features: Features::from_bits(self.features),
            ring_capacity_bytes: self.ring_capacity_bytes,
            max_ring_capacity_bytes: self.max_ring_capacity_bytes,
            max_calls: self.max_calls,
            receive_window_bytes: self.receive_window_bytes,
            max_message_bytes: self.max_message_bytes,
            bells: BellKinds::from_bits(self.bells),
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            versions: self.versions(),
            features: Features::from_bits(self.features),
            ring_capacity_bytes: self.ring_capacity_bytes,
            receive_window_bytes: self.receive_window_bytes,
            max_message_bytes: self.max_message_bytes,
            bells: BellKinds::from_bits(self.bells),
            name: String::new(),
        }
    }

    /// A range that can be written: not empty, and without 0.
    fn versions(&self) -> VersionRange {
        let min = self.versions.0.max(1);
        let max = self.versions.1.max(min);
        VersionRange { min, max }
    }
}
