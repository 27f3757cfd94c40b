//! Every rule of the handshake, broken once.

use super::*;
use crate::limits::{DEFAULT_MAX_CHUNK_BYTES, MAX_CALLS_HIGHEST, MAX_CREDIT_BYTES};

fn hello() -> Hello {
    Hello {
        versions: VERSIONS,
        features: Features::BODY_CRC.with(Features::from_bits(1 << 63)),
        ring_capacity_bytes: 0,
        receive_window_bytes: 65_536,
        max_message_bytes: 1 << 20,
        bells: BellKinds::EVENT_FD.with(BellKinds::SOCKET),
        name: "editor".to_owned(),
    }
}

fn offer() -> ServerOffer {
    ServerOffer {
        features: Features::BODY_CRC,
        ring_capacity_bytes: 1 << 20,
        ..ServerOffer::default()
    }
}

fn welcome() -> Welcome {
    negotiate(&hello(), &offer()).unwrap()
}

fn refused() -> Refused {
    Refused {
        reason: RefuseReason::Full,
        versions: VERSIONS,
        text: "try later".to_owned(),
    }
}

fn messages() -> [Message; 3] {
    [
        Message::Hello(hello()),
        Message::Welcome(welcome()),
        Message::Refused(refused()),
    ]
}

/// The rest of a message after its framing, framed anew.
fn framed(rest: &[u8]) -> Vec<u8> {
    [
        &b"DRBLCTL1"[..],
        &u32::try_from(rest.len()).unwrap().to_le_bytes(),
        rest,
    ]
    .concat()
}

#[test]
fn message_survives_the_codec_and_every_prefix_is_incomplete() {
    for message in messages() {
        let mut bytes = message.encode();
        for end in 0..bytes.len() {
            assert_eq!(Message::decode(&bytes[..end]), Ok(None));
        }
        let length = bytes.len();
        bytes.extend_from_slice(b"the next one");
        assert_eq!(Message::decode(&bytes), Ok(Some((message, length))));
    }
}

#[test]
fn message_cut_short_or_prolonged_inside_its_framing_is_rejected() {
    for message in messages() {
        let rest = message.encode().split_off(12);
        for end in 1..rest.len() {
            let result = Message::decode(&framed(&rest[..end]));
            assert!(
                matches!(result, Err(HandshakeError::Truncated { .. })),
                "{result:?}"
            );
        }
        let long = [&rest[..], &[0, 0]].concat();
        assert_eq!(
            Message::decode(&framed(&long)),
            Err(HandshakeError::Trailing { bytes: 2 })
        );
    }
}

#[test]
fn wrong_magic_is_rejected_at_its_first_byte() {
    assert_eq!(
        Message::decode(b"GET / HTTP/1.1"),
        Err(HandshakeError::Magic { offset: 0 })
    );
    assert_eq!(
        Message::decode(b"DRBLCTL2"),
        Err(HandshakeError::Magic { offset: 7 })
    );
    assert_eq!(
        Message::decode(b"DRX"),
        Err(HandshakeError::Magic { offset: 2 })
    );
}

#[test]
fn length_of_zero_or_beyond_the_limit_is_rejected_before_the_rest_arrives() {
    for rest_bytes in [0, 4085, u32::MAX] {
        let bytes = [&b"DRBLCTL1"[..], &rest_bytes.to_le_bytes()].concat();
        assert_eq!(
            Message::decode(&bytes),
            Err(HandshakeError::Length { rest_bytes })
        );
    }
    assert_eq!(
        Message::decode(&[&b"DRBLCTL1"[..], &4084u32.to_le_bytes()].concat()),
        Ok(None)
    );
}

#[test]
fn unknown_kind_is_rejected() {
    assert_eq!(
        Message::decode(&framed(&[4])),
        Err(HandshakeError::UnknownKind { kind: 4 })
    );
}

#[test]
fn version_range_that_is_empty_or_starts_at_zero_is_rejected() {
    for (versions, field, value) in [
        ([0, 0, 1, 0], "versions.min", 0),
        ([3, 0, 2, 0], "versions.max", 2),
    ] {
        let rest = [&[3, 1, 0], &versions[..], &[0, 0]].concat();
        assert_eq!(
            Message::decode(&framed(&rest)),
            Err(HandshakeError::Field { field, value })
        );
    }
}

#[test]
fn text_too_long_or_not_utf_8_is_rejected() {
    let rest = |text: &[u8]| {
        let length = u16::try_from(text.len()).unwrap().to_le_bytes();
        framed(&[&[3, 1, 0, 1, 0, 1, 0], &length[..], text].concat())
    };
    let error = |bytes| {
        Err(HandshakeError::Text {
            field: "text",
            bytes,
        })
    };
    assert!(Message::decode(&rest(&[b'x'; 512])).is_ok());
    assert_eq!(Message::decode(&rest(&[b'x'; 513])), error(513));
    assert_eq!(Message::decode(&rest(b"\xFF")), error(1));
}

#[test]
fn texts_are_cut_at_a_character_when_written() {
    let hello = Hello {
        name: "é".repeat(40),
        ..hello()
    };
    let Ok(Some((Message::Hello(read), _))) = Message::decode(&hello.encode()) else {
        panic!("not a hello")
    };
    assert_eq!(read.name, "é".repeat(32));
}

#[test]
fn unknown_bell_is_rejected() {
    let mut bytes = welcome().encode();
    *bytes.last_mut().unwrap() = 3;
    assert_eq!(
        Message::decode(&bytes),
        Err(HandshakeError::Field {
            field: "bell",
            value: 3
        })
    );
}

#[test]
fn unknown_refuse_reason_is_kept() {
    assert_eq!(RefuseReason::from_u16(99), RefuseReason::Other(99));
    for reason in 0..12 {
        assert_eq!(RefuseReason::from_u16(reason).as_u16(), reason);
    }
}

#[test]
fn common_version_is_the_highest_in_both_ranges() {
    let range = |min, max| VersionRange { min, max };
    assert_eq!(range(1, 4).common(range(2, 9)), Some(4));
    assert_eq!(range(3, 3).common(range(3, 3)), Some(3));
    assert_eq!(range(1, 2).common(range(3, 4)), None);
    assert_eq!(
        (range(1, 1).to_string(), range(1, 3).to_string()),
        ("1".to_owned(), "1 to 3".to_owned())
    );
}

#[test]
fn negotiate_agrees_on_what_both_know() {
    let welcome = welcome();
    assert_eq!(
        (welcome.version, welcome.features, welcome.bell),
        (1, Features::BODY_CRC, BellKind::EventFd)
    );
    assert_eq!(
        (welcome.server_ring_capacity_bytes, welcome.max_chunk_bytes),
        (1 << 20, DEFAULT_MAX_CHUNK_BYTES)
    );
    assert_eq!(welcome.check(&hello()), Ok(()));
}

#[test]
fn negotiate_makes_every_wish_a_ring_that_the_client_accepts() {
    for (wish, expected) in [
        (1, 4096),
        (5000, 8192),
        (1 << 16, 1 << 16),
        (u32::MAX, 64 << 20),
        (0, 1 << 20),
    ] {
        let hello = Hello {
            ring_capacity_bytes: wish,
            ..hello()
        };
        let welcome = negotiate(&hello, &offer()).unwrap();
        assert_eq!(welcome.client_ring_capacity_bytes, expected);
        assert_eq!(welcome.check(&hello), Ok(()));
    }
    let odd = ServerOffer {
        max_ring_capacity_bytes: 100_000,
        ..offer()
    };
    let welcome = negotiate(
        &Hello {
            ring_capacity_bytes: 99_000,
            ..hello()
        },
        &odd,
    )
    .unwrap();
    assert_eq!(welcome.server_ring_capacity_bytes, 65_536);
}

#[test]
fn chunk_with_its_header_takes_a_quarter_of_a_small_ring() {
    assert_eq!(
        (chunk_bytes_for_ring(4096), chunk_bytes_for_ring(8192)),
        (1000, 2024)
    );
    assert_eq!(chunk_bytes_for_ring(1 << 30), DEFAULT_MAX_CHUNK_BYTES);
}

#[test]
fn negotiate_with_an_offer_out_of_bounds_stays_within_them() {
    let offer = ServerOffer {
        ring_capacity_bytes: 0,
        max_ring_capacity_bytes: u32::MAX,
        max_calls: 0,
        receive_window_bytes: u32::MAX,
        max_message_bytes: 0,
        ..offer()
    };
    assert_eq!(negotiate(&hello(), &offer).unwrap().check(&hello()), Ok(()));
}

#[test]
fn negotiate_refuses_what_cannot_work() {
    let reason = |hello: Hello| negotiate(&hello, &offer()).map_err(|refused| refused.reason);
    let versions = VersionRange { min: 2, max: 3 };
    assert_eq!(
        reason(Hello {
            versions,
            ..hello()
        }),
        Err(RefuseReason::Version)
    );
    assert_eq!(
        reason(Hello {
            bells: BellKinds::from_bits(4),
            ..hello()
        }),
        Err(RefuseReason::Policy)
    );
    assert_eq!(
        reason(Hello {
            receive_window_bytes: 0,
            ..hello()
        }),
        Err(RefuseReason::Malformed)
    );
    assert_eq!(
        reason(Hello {
            max_message_bytes: 0,
            ..hello()
        }),
        Err(RefuseReason::Malformed)
    );
    let socket = negotiate(
        &Hello {
            bells: BellKinds::SOCKET,
            ..hello()
        },
        &offer(),
    )
    .unwrap();
    assert_eq!(socket.bell, BellKind::Socket);
}

#[test]
fn check_rejects_what_the_client_did_not_offer() {
    let welcome = welcome();
    let (chosen, ours) = (2, VERSIONS);
    assert_eq!(
        Welcome {
            version: 2,
            ..welcome
        }
        .check(&hello()),
        Err(OfferError::Version { chosen, ours })
    );
    let (chosen, ours) = (Features::from_bits(2), hello().features);
    assert_eq!(
        Welcome {
            features: chosen,
            ..welcome
        }
        .check(&hello()),
        Err(OfferError::Features { chosen, ours })
    );
    let deaf = Hello {
        bells: BellKinds::SOCKET,
        ..hello()
    };
    assert_eq!(
        welcome.check(&deaf),
        Err(OfferError::Bell {
            chosen: BellKind::EventFd
        })
    );
}

#[test]
fn check_rejects_numbers_out_of_bounds() {
    let field = |welcome: Welcome| match welcome.check(&hello()) {
        Err(OfferError::OutOfBounds { field, .. }) => field,
        result => panic!("{result:?}"),
    };
    for wrong in [0, 2048, 5000, 1 << 31] {
        assert_eq!(
            field(Welcome {
                server_ring_capacity_bytes: wrong,
                ..welcome()
            }),
            "server_ring_capacity_bytes"
        );
        assert_eq!(
            field(Welcome {
                client_ring_capacity_bytes: wrong,
                ..welcome()
            }),
            "client_ring_capacity_bytes"
        );
    }
    for wrong in [0, MAX_CALLS_HIGHEST + 1] {
        assert_eq!(
            field(Welcome {
                max_calls: wrong,
                ..welcome()
            }),
            "max_calls"
        );
    }
    for wrong in [0, 1023, MAX_CREDIT_BYTES + 1] {
        assert_eq!(
            field(Welcome {
                receive_window_bytes: wrong,
                ..welcome()
            }),
            "receive_window_bytes"
        );
    }
    assert_eq!(
        field(Welcome {
            max_message_bytes: 0,
            ..welcome()
        }),
        "max_message_bytes"
    );
    for wrong in [0, 999, (1 << 18) - 23] {
        assert_eq!(
            field(Welcome {
                max_chunk_bytes: wrong,
                ..welcome()
            }),
            "max_chunk_bytes"
        );
    }
}
