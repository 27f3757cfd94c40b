//! Bytes on the control socket, from a hostile client and from a hostile server.

#![no_main]

use doorbell_proto::handshake::{
    BellKinds, Features, Hello, Message, ServerOffer, VERSIONS, Welcome, negotiate,
};
use doorbell_proto::limits::MAX_HANDSHAKE_BYTES;
use doorbell_shm::Layout;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(Some((message, length))) = Message::decode(bytes) else {
        return;
    };
    assert!(length <= bytes.len() && length <= MAX_HANDSHAKE_BYTES);
    assert_eq!(
        message.encode(),
        bytes[..length],
        "one message, one encoding"
    );
    // Every end of every seed is a matter of the unit tests; here each run is to be short.
    for end in [0, length / 3, length / 2, length - 1] {
        assert_eq!(
            Message::decode(&bytes[..end]),
            Ok(None),
            "complete at {end}"
        );
    }
    match message {
        Message::Hello(hello) => answer(&hello),
        Message::Welcome(welcome) => accept(&welcome),
        Message::Refused(refused) => assert!(!refused.to_string().is_empty()),
    }
});

/// Whatever a client wishes, what a server answers is acceptable to it.
fn answer(hello: &Hello) {
    if let Ok(welcome) = negotiate(hello, &ServerOffer::default()) {
        assert_eq!(welcome.check(hello), Ok(()));
        map(&welcome);
    }
}

/// Whatever a server answers, what a client accepts can be mapped.
fn accept(welcome: &Welcome) {
    let hello = Hello {
        versions: VERSIONS,
        features: Features::BODY_CRC,
        ring_capacity_bytes: 0,
        receive_window_bytes: 1 << 18,
        max_message_bytes: 1 << 26,
        bells: BellKinds::EVENT_FD.with(BellKinds::SOCKET),
        name: String::new(),
    };
    if welcome.check(&hello).is_ok() {
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
