//! Every rule of the header, broken once.

use super::*;
use crate::metadata::Metadata;
use std::time::Duration;

/// A header that is valid for each kind.
fn valid(kind: FrameKind) -> FrameHeader {
    let value = match kind {
        FrameKind::Call
        | FrameKind::Response
        | FrameKind::Notify
        | FrameKind::Error
        | FrameKind::Credit
        | FrameKind::Segment
        | FrameKind::WantSegment => 7,
        _ => 0,
    };
    let has_none = matches!(
        kind,
        FrameKind::Notify | FrameKind::GoAway | FrameKind::WantSegment | FrameKind::Quiet
    );
    let id = if has_none { 0 } else { 5 };
    let length = if kind == FrameKind::Error { 4 } else { 0 };
    FrameHeader {
        length,
        ..FrameHeader::new(kind, id, value)
    }
}

fn kinds() -> impl Iterator<Item = FrameKind> {
    (0..=255).filter_map(FrameKind::from_u8)
}

fn decoded(header: FrameHeader) -> Result<FrameHeader, FrameError> {
    FrameHeader::decode(&header.encode())
}

#[test]
fn valid_header_of_every_kind_survives_the_codec() {
    assert_eq!(kinds().count(), 16);
    for kind in kinds() {
        assert_eq!(decoded(valid(kind)), Ok(valid(kind)));
    }
}

#[test]
fn crc_is_zero_until_set_and_no_other_byte_changes() {
    let mut bytes = valid(FrameKind::Call).encode();
    assert_eq!(FrameHeader::crc(&bytes), 0);
    FrameHeader::set_crc(&mut bytes, 0xDEAD_BEEF);
    assert_eq!(FrameHeader::crc(&bytes), 0xDEAD_BEEF);
    assert_eq!(FrameHeader::decode(&bytes), Ok(valid(FrameKind::Call)));
}

#[test]
fn padding_and_unassigned_kinds_are_rejected() {
    for kind in [0, 17, 255] {
        let mut bytes = valid(FrameKind::Ping).encode();
        bytes[4] = kind;
        assert_eq!(
            FrameHeader::decode(&bytes),
            Err(FrameError::UnknownKind { kind })
        );
    }
}

#[test]
fn flags_are_allowed_exactly_where_the_document_says() {
    let divisible = [FrameKind::Call, FrameKind::Response, FrameKind::Data];
    for kind in kinds() {
        for bit in (0..8).map(|shift| 1 << shift) {
            let allowed = match Flags::from_bits(bit) {
                Flags::MORE | Flags::CONTINUE => divisible.contains(&kind),
                Flags::DEADLINE | Flags::UPLOAD | Flags::STREAMING => kind == FrameKind::Call,
                Flags::BODY_CRC => true,
                // One bit with two names: `LOANED` on messages.
                Flags::NOT_EXECUTED => kind == FrameKind::Error || divisible.contains(&kind),
                Flags::PACKED => matches!(kind, FrameKind::Data | FrameKind::Notify),
                _ => unreachable!("there are eight flags"),
            };
            let length = if bit == Flags::LOANED.bits() && divisible.contains(&kind) {
                12
            } else if divisible.contains(&kind) || kind == FrameKind::Notify {
                100
            } else {
                valid(kind).length
            };
            let header = FrameHeader {
                flags: Flags::from_bits(bit),
                length,
                ..valid(kind)
            };
            let expected = if allowed {
                Ok(header)
            } else {
                Err(FrameError::FlagsNotAllowed { kind, flags: bit })
            };
            assert_eq!(decoded(header), expected);
        }
    }
}

#[test]
fn flags_of_an_opening_are_rejected_on_a_continuation() {
    for opening in [Flags::DEADLINE, Flags::UPLOAD, Flags::STREAMING] {
        let flags = Flags::CONTINUE.with(opening);
        let header = FrameHeader {
            flags,
            length: 100,
            ..valid(FrameKind::Call)
        };
        let error = FrameError::FlagsNotAllowed {
            kind: FrameKind::Call,
            flags: flags.bits(),
        };
        assert_eq!(decoded(header), Err(error));
    }
}

#[test]
fn packed_frame_is_neither_divided_nor_has_it_metadata() {
    let packed = |kind, flags: Flags, metadata_bytes| {
        decoded(FrameHeader {
            flags: flags.with(Flags::PACKED),
            length: 100,
            metadata_bytes,
            ..valid(kind)
        })
    };
    for divided in [Flags::MORE, Flags::CONTINUE] {
        let error = FrameError::FlagsNotAllowed {
            kind: FrameKind::Data,
            flags: divided.with(Flags::PACKED).bits(),
        };
        assert_eq!(packed(FrameKind::Data, divided, 0), Err(error));
    }
    assert!(packed(FrameKind::Notify, Flags::BODY_CRC, 0).is_ok());
    let error = FrameError::MetadataSize {
        kind: FrameKind::Notify,
        metadata_bytes: 8,
    };
    assert_eq!(packed(FrameKind::Notify, Flags::NONE, 8), Err(error));
}

#[test]
fn metadata_size_is_checked() {
    let with = |kind, flags, metadata_bytes| {
        decoded(FrameHeader {
            length: 60_000,
            flags,
            metadata_bytes,
            ..valid(kind)
        })
    };
    let rejected = |kind, metadata_bytes| {
        Err(FrameError::MetadataSize {
            kind,
            metadata_bytes,
        })
    };
    assert!(with(FrameKind::Call, Flags::NONE, 16_384).is_ok());
    for wrong in [4, 16_392] {
        assert_eq!(
            with(FrameKind::Call, Flags::NONE, wrong),
            rejected(FrameKind::Call, wrong)
        );
    }
    for without in [
        FrameKind::Data,
        FrameKind::End,
        FrameKind::Ping,
        FrameKind::GoAway,
    ] {
        assert_eq!(with(without, Flags::NONE, 8), rejected(without, 8));
    }
    assert_eq!(
        with(FrameKind::Call, Flags::CONTINUE, 8),
        rejected(FrameKind::Call, 8)
    );
}

#[test]
fn id_on_a_frame_without_one_is_rejected() {
    for kind in [FrameKind::Notify, FrameKind::GoAway] {
        assert_eq!(
            decoded(FrameHeader {
                id: 1,
                ..valid(kind)
            }),
            Err(FrameError::IdNotZero { kind, id: 1 })
        );
    }
}

#[test]
fn value_outside_its_range_is_rejected() {
    let wrong = [
        (FrameKind::Error, 0),
        (FrameKind::Error, 17),
        (FrameKind::Data, 1),
        (FrameKind::End, 1),
        (FrameKind::Cancel, 1),
        (FrameKind::Credit, 0),
        (FrameKind::Ping, 1),
        (FrameKind::Pong, 1),
        (FrameKind::GoAway, 4),
    ];
    for (kind, value) in wrong {
        assert_eq!(
            decoded(FrameHeader {
                value,
                ..valid(kind)
            }),
            Err(FrameError::Value { kind, value })
        );
    }
}

#[test]
fn length_that_cannot_hold_its_parts_is_rejected() {
    let check = |header: FrameHeader, minimum: u32| {
        assert_eq!(
            decoded(FrameHeader {
                length: minimum,
                ..header
            })
            .map(|header| header.length),
            Ok(minimum)
        );
        let length = minimum - 1;
        let error = FrameError::Length {
            kind: header.kind,
            length,
        };
        assert_eq!(decoded(FrameHeader { length, ..header }), Err(error));
    };
    let with = |kind, flags, metadata_bytes| FrameHeader {
        flags,
        metadata_bytes,
        ..valid(kind)
    };
    check(with(FrameKind::Call, Flags::NONE, 16), 16);
    check(with(FrameKind::Call, Flags::DEADLINE, 16), 24);
    check(
        with(FrameKind::Call, Flags::DEADLINE.with(Flags::MORE), 16),
        33,
    );
    check(with(FrameKind::Response, Flags::MORE, 0), 9);
    check(with(FrameKind::Data, Flags::CONTINUE, 0), 1);
    check(
        with(FrameKind::Data, Flags::CONTINUE.with(Flags::MORE), 0),
        1,
    );
    check(with(FrameKind::Error, Flags::NONE, 8), 12);
}

#[test]
fn length_on_a_frame_without_a_body_is_rejected() {
    for kind in [
        FrameKind::End,
        FrameKind::Cancel,
        FrameKind::Credit,
        FrameKind::Ping,
        FrameKind::Pong,
    ] {
        assert_eq!(
            decoded(FrameHeader {
                length: 1,
                ..valid(kind)
            }),
            Err(FrameError::Length { kind, length: 1 })
        );
    }
    let kind = FrameKind::GoAway;
    assert!(
        decoded(FrameHeader {
            length: 1024,
            ..valid(kind)
        })
        .is_ok()
    );
    assert_eq!(
        decoded(FrameHeader {
            length: 1025,
            ..valid(kind)
        }),
        Err(FrameError::Length { kind, length: 1025 })
    );
}

#[test]
fn body_survives_the_codec_with_every_prefix() {
    let mut metadata = Metadata::new();
    metadata.insert("key", b"value").unwrap();
    for bits in 0..8 {
        let prefix = Prefix {
            remaining: (bits & 1 != 0).then_some(Duration::from_nanos(77)),
            total_bytes: (bits & 2 != 0).then_some(1000),
            metadata: (bits & 4 != 0).then_some(&metadata),
        };
        let mut header = valid(FrameKind::Call);
        assert!(prefix.set_header(&mut header, 7));
        assert_eq!(decoded(header), Ok(header));
        let mut bytes = Vec::new();
        prefix.encode(&mut bytes);
        assert_eq!(
            (bytes.len(), bytes.is_empty()),
            (prefix.encoded_bytes(), prefix.is_empty())
        );
        assert_eq!(bytes.len(), header.prefix_bytes());
        bytes.extend_from_slice(b"payload");
        let body = Body::parse(&header, &bytes).unwrap();
        assert_eq!(
            (body.remaining, body.total_bytes, body.payload),
            (prefix.remaining, prefix.total_bytes, &b"payload"[..])
        );
        assert_eq!(body.metadata.to_option().as_ref(), prefix.metadata);
    }
}

#[test]
fn body_shorter_than_its_prefix_is_rejected() {
    let header = FrameHeader {
        length: 4,
        flags: Flags::DEADLINE,
        ..valid(FrameKind::Call)
    };
    let error = FrameError::Length {
        kind: FrameKind::Call,
        length: 4,
    };
    assert_eq!(Body::parse(&header, &[0; 4]), Err(error));
    let mismatch = FrameError::BodyMismatch {
        length: 4,
        actual: 5,
    };
    assert_eq!(Body::parse(&header, &[0; 5]), Err(mismatch));
}

#[test]
fn prefix_with_a_payload_beyond_32_bits_changes_nothing() {
    let mut header = valid(FrameKind::Call);
    assert!(!Prefix::default().set_header(&mut header, usize::MAX));
    assert_eq!(header, valid(FrameKind::Call));
}

#[test]
fn call_id_keeps_slot_and_generation_apart() {
    let id = CallId::new(0xAABB_CCDD, 0x1122_3344);
    assert_eq!(id.raw(), 0x1122_3344_AABB_CCDD);
    assert_eq!((id.slot(), id.generation()), (0xAABB_CCDD, 0x1122_3344));
    assert_eq!(CallId::from_raw(id.raw()), id);
}

#[test]
fn call_kind_survives_its_flags() {
    for kind in [
        CallKind::Unary,
        CallKind::ServerStream,
        CallKind::ClientStream,
        CallKind::Bidirectional,
    ] {
        assert_eq!(CallKind::from_flags(kind.flags().with(Flags::MORE)), kind);
        assert_eq!(kind.flags().contains(Flags::UPLOAD), kind.has_upload());
        assert_eq!(kind.flags().contains(Flags::STREAMING), kind.is_streaming());
    }
}

#[test]
fn plain_headers_pass_every_check() {
    for kind in 0..=u8::MAX {
        for flags in [0, Flags::BODY_CRC.bits()] {
            for (id, value) in [(0, 0), (7, 0), (0, 7), (7, 7)] {
                let Some(kind) = FrameKind::from_u8(kind) else {
                    continue;
                };
                let mut header = FrameHeader::new(kind, id, value);
                header.flags = Flags::from_bits(flags);
                if header.is_plain() {
                    header.check_flags().unwrap();
                    header.check_metadata_bytes().unwrap();
                    header.check_fields().unwrap();
                    header.check_length().unwrap();
                }
            }
        }
    }
}
