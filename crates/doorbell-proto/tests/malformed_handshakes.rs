//! Handshakes that are wrong: what the decoder says of them, and what each side says to the other.

use doorbell_proto::handshake::{
    BellKinds, Features, HandshakeError, Hello, Message, OfferError, RefuseReason, Refused,
    ServerOffer, VERSIONS, VersionRange, Welcome, negotiate,
};

fn hello() -> Hello {
    Hello {
        versions: VERSIONS,
        features: Features::BODY_CRC,
        ring_capacity_bytes: 0,
        receive_window_bytes: 1 << 18,
        max_message_bytes: 1 << 20,
        bells: BellKinds::EVENT_FD,
        name: "editor".to_owned(),
    }
}

fn welcome() -> Welcome {
    negotiate(&hello(), &ServerOffer::default()).unwrap()
}

fn refused(text: &str) -> Refused {
    Refused {
        reason: RefuseReason::Full,
        versions: VERSIONS,
        text: text.to_owned(),
    }
}

/// The message again with these bytes after its framing.
fn framed(rest: &[u8]) -> Vec<u8> {
    let length = u32::try_from(rest.len()).unwrap().to_le_bytes();
    [&b"DRBLCTL1"[..], &length, rest].concat()
}

#[test]
fn handshake_message_cut_inside_a_field_names_that_field() {
    let range = [("versions.min", 2), ("versions.max", 2)];
    let hello_fields = [
        ("features", 8),
        ("ring_capacity_bytes", 4),
        ("receive_window_bytes", 4),
        ("max_message_bytes", 8),
        ("bells", 1),
        ("name", 2 + 6),
    ];
    let welcome_fields = [
        ("version", 2),
        ("features", 8),
        ("server_ring_capacity_bytes", 4),
        ("client_ring_capacity_bytes", 4),
        ("max_calls", 4),
        ("receive_window_bytes", 4),
        ("max_message_bytes", 8),
        ("max_chunk_bytes", 4),
        ("bell", 1),
    ];
    let cases = [
        (
            Message::Hello(hello()),
            [&range[..], &hello_fields].concat(),
        ),
        (Message::Welcome(welcome()), welcome_fields.to_vec()),
        (
            Message::Refused(refused("later")),
            [&[("reason", 2)], &range[..], &[("text", 2 + 5)]].concat(),
        ),
    ];
    for (message, fields) in cases {
        let rest = message.encode().split_off(12);
        let mut end = 1; // after the kind
        for (field, bytes) in fields {
            for _ in 0..bytes {
                let error = HandshakeError::Truncated { field };
                assert_eq!(Message::decode(&framed(&rest[..end])), Err(error), "{end}");
                end += 1;
            }
        }
        assert_eq!(end, rest.len(), "every field was cut");
    }
}

#[test]
fn handshake_message_that_breaks_a_rule_is_told_which() {
    let (first, last) = (VERSIONS.min.to_le_bytes(), VERSIONS.max.to_le_bytes());
    let text = |bytes: &[u8]| {
        let length = u16::try_from(bytes.len()).unwrap().to_le_bytes();
        framed(&[&[3, 1, 0], &first[..], &last, &length, bytes].concat())
    };
    let mut bell = welcome().encode();
    *bell.last_mut().unwrap() = 9;
    let broken = [
        (b"DRBLCTL2".to_vec(), "byte 7 of the magic number is wrong"),
        (
            framed(b""),
            "message of 0 bytes after its length, from 1 to 4084 are allowed",
        ),
        (framed(&[0]), "message kind 0 is unknown"),
        (framed(&[2, 1]), "message ends inside field version"),
        (
            framed(&[3, 1, 0, 0, 0, 1, 0]),
            "field versions.min has value 0",
        ),
        (
            framed(&[3, 1, 0, 3, 0, 2, 0]),
            "field versions.max has value 2",
        ),
        (bell, "field bell has value 9"),
        (
            text(&[b'x'; 513]),
            "field text of 513 bytes is too long or not UTF-8",
        ),
        (
            text(b"\xC3"),
            "field text of 1 bytes is too long or not UTF-8",
        ),
    ];
    for (bytes, said) in broken {
        let error = Message::decode(&bytes).expect_err(said);
        assert_eq!(error.to_string(), said);
    }
    let long = [&refused("").encode().split_off(12)[..], &[0, 0, 0]].concat();
    let error = Message::decode(&framed(&long)).expect_err("too long");
    assert_eq!(error.to_string(), "3 bytes after the last field");
}

#[test]
fn offer_that_a_client_does_not_accept_is_told_why() {
    let welcome = welcome();
    let said = |welcome: Welcome, hello: &Hello| welcome.check(hello).unwrap_err().to_string();
    let later = Welcome {
        version: 2,
        ..welcome
    };
    assert_eq!(said(later, &hello()), "server chose version 2, ours are 1");
    let features = Welcome {
        features: Features::LOANS,
        ..welcome
    };
    assert_eq!(
        said(features, &hello()),
        "server chose features 0x2, ours are 0x1"
    );
    for (ours, theirs, name) in [
        (BellKinds::EVENT_FD, BellKinds::SOCKET, "socket"),
        (BellKinds::SOCKET, BellKinds::EVENT_FD, "eventfd"),
    ] {
        let bells = |bells| Hello { bells, ..hello() };
        let chosen = negotiate(&bells(theirs), &ServerOffer::default()).unwrap();
        assert_eq!(
            said(chosen, &bells(ours)),
            format!("server chose bell {name}, which we do not have")
        );
    }
    let many = Welcome {
        max_calls: 70_000,
        ..welcome
    };
    let error = many.check(&hello()).unwrap_err();
    assert!(matches!(error, OfferError::OutOfBounds { .. }));
    assert_eq!(
        error.to_string(),
        "server chose max_calls 70000, which is out of bounds"
    );
}

#[test]
fn refusal_says_its_reason_and_its_text() {
    assert_eq!(refused("").to_string(), "the server is full");
    assert_eq!(
        refused("try later").to_string(),
        "the server is full: try later"
    );
    let mut said = std::collections::HashSet::new();
    for number in 0..=9 {
        let reason = RefuseReason::from_u16(number);
        let sent = Message::Refused(Refused {
            reason,
            ..refused("")
        });
        let bytes = sent.encode();
        let length = bytes.len();
        assert_eq!(Message::decode(&bytes), Ok(Some((sent, length))));
        assert!(
            said.insert(reason.to_string()),
            "{number} says what another says"
        );
    }
    assert!(said.contains("unknown reason 0") && said.contains("unknown reason 9"));
    // As in docs/handshake.md: what the server may have again later.
    let retryable = (0..=9).filter(|number| RefuseReason::from_u16(*number).is_retryable());
    assert_eq!(retryable.collect::<Vec<_>>(), [3, 4, 5, 7]);
}

#[test]
fn server_that_speaks_other_versions_says_which_the_client_speaks() {
    let hello = Hello {
        versions: VersionRange { min: 2, max: 3 },
        ..hello()
    };
    let refused = negotiate(&hello, &ServerOffer::default()).unwrap_err();
    assert_eq!(
        (refused.versions, refused.to_string().as_str()),
        (
            VERSIONS,
            "no common protocol version: the client speaks 2 to 3"
        )
    );
}
