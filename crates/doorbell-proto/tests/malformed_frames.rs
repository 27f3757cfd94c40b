//! Frames that are wrong: what the decoders say of them, and that nothing cut short is taken for whole.

use doorbell_proto::metadata::MetadataError;
use doorbell_proto::{
    Body, Code, Flags, FrameError, FrameHeader, FrameKind, HEADER_BYTES, Metadata, MetadataRef,
    Prefix, Status,
};
use std::time::Duration;

fn metadata() -> Metadata {
    let mut metadata = Metadata::new();
    for (key, value) in [("trace-id", &b"\x01\x02"[..]), ("a", b""), ("a", b"xyz")] {
        metadata.insert(key, value).unwrap();
    }
    metadata
}

/// A first frame with everything that a body can begin with, and four bytes of payload.
fn call() -> (FrameHeader, Vec<u8>) {
    let metadata = metadata();
    let prefix = Prefix {
        remaining: Some(Duration::from_nanos(77)),
        total_bytes: Some(1000),
        metadata: Some(&metadata),
    };
    let mut header = FrameHeader::new(FrameKind::Call, 5, 7);
    assert!(prefix.set_header(&mut header, 4));
    let mut body = Vec::new();
    prefix.encode(&mut body);
    body.extend_from_slice(b"load");
    (header, body)
}

fn with_length(header: FrameHeader, length: usize) -> FrameHeader {
    FrameHeader {
        length: u32::try_from(length).unwrap(),
        ..header
    }
}

#[test]
fn body_cut_at_any_byte_is_not_the_body_that_its_header_promises() {
    let (header, body) = call();
    for end in 0..body.len() {
        let mismatch = FrameError::BodyMismatch {
            length: header.length,
            actual: end,
        };
        assert_eq!(Body::parse(&header, &body[..end]), Err(mismatch));
    }
}

#[test]
fn body_with_a_length_that_ends_in_its_prefix_is_rejected_by_header_and_body() {
    let (header, body) = call();
    let prefix_bytes = body.len() - b"load".len();
    for end in 0..body.len() {
        let header = with_length(header, end);
        let error = FrameError::Length {
            kind: FrameKind::Call,
            length: header.length,
        };
        let parsed = Body::parse(&header, &body[..end]);
        if end < prefix_bytes {
            assert_eq!(parsed, Err(error));
        } else {
            assert_eq!(parsed.unwrap().payload, &body[prefix_bytes..end]);
        }
        // Each of several frames has some payload, which the header says alone.
        let decoded = FrameHeader::decode(&header.encode());
        if end <= prefix_bytes {
            assert_eq!(decoded, Err(error));
        } else {
            assert_eq!(decoded, Ok(header));
        }
    }
}

#[test]
fn body_whose_metadata_is_not_a_block_is_rejected() {
    let (header, mut body) = call();
    let block = 16; // after two numbers
    body[block..block + 2].fill(0);
    let empty = FrameError::Metadata(MetadataError::Empty);
    assert_eq!(Body::parse(&header, &body), Err(empty));
    body[block] = 65;
    let entries = MetadataError::TooManyEntries { entries: 65 };
    assert_eq!(
        Body::parse(&header, &body),
        Err(FrameError::Metadata(entries))
    );
}

#[test]
fn metadata_cut_at_any_byte_is_rejected() {
    let mut block = Vec::new();
    metadata().encode(&mut block);
    assert!(block.len() > 24, "cut in more places than one");
    for end in 0..block.len() {
        let error = if end % 8 == 0 {
            MetadataError::Truncated
        } else {
            MetadataError::TooLarge { bytes: end }
        };
        assert_eq!(MetadataRef::parse(&block[..end]), Err(error), "{end}");
    }
    assert!(MetadataRef::parse(&block).is_ok());
}

#[test]
fn status_cut_at_any_byte_is_rejected_before_its_details() {
    let status = Status::not_found("später")
        .with_details(*b"why")
        .with_metadata(metadata());
    let (header, body) = status.to_frame(5, 1000);
    let text_length = usize::from(header.metadata_bytes);
    let text = text_length + 4;
    let details = body.len() - b"why".len();
    let kind = FrameKind::Error;
    for end in 0..body.len() {
        let header = with_length(header, end);
        let read = Status::from_frame(&header, &body[..end]);
        let length = header.length;
        if end < text {
            assert_eq!(read, Err(FrameError::Length { kind, length }), "{end}");
        } else if end < details {
            let text_bytes = details - text;
            assert_eq!(read, Err(FrameError::Text { kind, text_bytes }), "{end}");
        } else {
            assert_eq!(read.unwrap().details(), &body[details..end]);
        }
    }
}

#[test]
fn status_with_an_unknown_code_or_bad_metadata_is_rejected() {
    let (header, body) = Status::internal("")
        .with_metadata(metadata())
        .to_frame(5, 1000);
    let unknown = FrameHeader {
        value: 17,
        ..header
    };
    let error = FrameError::Value {
        kind: FrameKind::Error,
        value: 17,
    };
    assert_eq!(Status::from_frame(&unknown, &body), Err(error));
    let mut bad = body.clone();
    bad[2] = 0; // bytes of the first key
    let error = MetadataError::Key { key_bytes: 0 };
    assert_eq!(
        Status::from_frame(&header, &bad),
        Err(FrameError::Metadata(error))
    );
}

/// A rule that a header breaks: length, kind, flags, bytes of metadata, id, value; and what is said of it.
type BrokenHeader = ((u32, u8, u8, u16, u64, u32), &'static str);

#[test]
fn header_that_breaks_a_rule_is_told_which() {
    const MORE: u8 = Flags::MORE.bits();
    const PACKED: u8 = Flags::PACKED.bits();
    let broken: &[BrokenHeader] = &[
        ((0, 0, 0, 0, 5, 0), "frame kind 0 is unknown"),
        ((0, 17, 0, 0, 5, 0), "frame kind 17 is unknown"),
        ((0, 9, MORE, 0, 5, 0), "flags 0x01 are not allowed on PING"),
        (
            (8, 8, 0x40, 0, 0, 7),
            "flags 0x40 are not allowed on NOTIFY",
        ),
        (
            (99, 4, PACKED | MORE, 0, 5, 0),
            "flags 0x81 are not allowed on DATA",
        ),
        (
            (99, 1, 0, 4, 5, 7),
            "4 bytes of metadata are not allowed on CALL",
        ),
        (
            (99, 4, 0, 8, 5, 0),
            "8 bytes of metadata are not allowed on DATA",
        ),
        ((0, 8, 0, 0, 1, 7), "id 0x1 on NOTIFY must be zero"),
        ((0, 11, 0, 0, 2, 0), "id 0x2 on GOAWAY must be zero"),
        ((0, 13, 0, 0, 3, 1), "id 0x3 on WANT_SEGMENT must be zero"),
        (
            (0, 12, 0, 0, 1 << 32, 1),
            "id 0x100000000 on SEGMENT is not the number of a segment",
        ),
        (
            (0, 14, 0, 0, 1 << 32, 0),
            "id 0x100000000 on RETIRE is not the number of a segment",
        ),
        ((4, 3, 0, 0, 5, 0), "value 0 is not allowed on ERROR"),
        ((4, 3, 0, 0, 5, 17), "value 17 is not allowed on ERROR"),
        ((0, 4, 0, 0, 5, 1), "value 1 is not allowed on DATA"),
        ((0, 5, 0, 0, 5, 1), "value 1 is not allowed on END"),
        ((0, 6, 0, 0, 5, 1), "value 1 is not allowed on CANCEL"),
        ((0, 7, 0, 0, 5, 0), "value 0 is not allowed on CREDIT"),
        ((0, 10, 0, 0, 5, 2), "value 2 is not allowed on PONG"),
        ((0, 11, 0, 0, 0, 4), "value 4 is not allowed on GOAWAY"),
        ((0, 12, 0, 0, 3, 0), "value 0 is not allowed on SEGMENT"),
        (
            (0, 13, 0, 0, 0, 0),
            "value 0 is not allowed on WANT_SEGMENT",
        ),
        ((0, 14, 0, 0, 3, 1), "value 1 is not allowed on RETIRE"),
        ((0, 15, 0, 0, 3, 1), "value 1 is not allowed on RELEASE"),
        ((0, 16, 0, 0, 0, 1), "value 1 is not allowed on QUIET"),
        (
            (3, 3, 0, 0, 5, 1),
            "a body of 3 bytes is not allowed on ERROR here",
        ),
        (
            (8, 2, MORE, 0, 5, 7),
            "a body of 8 bytes is not allowed on RESPONSE here",
        ),
        (
            (13, 2, 0x40, 0, 5, 7),
            "a body of 13 bytes is not allowed on RESPONSE here",
        ),
        (
            (3, 4, PACKED, 0, 5, 0),
            "a body of 3 bytes is not allowed on DATA here",
        ),
        (
            (1025, 11, 0, 0, 0, 0),
            "a body of 1025 bytes is not allowed on GOAWAY here",
        ),
        (
            (1, 12, 0, 0, 3, 1),
            "a body of 1 bytes is not allowed on SEGMENT here",
        ),
        (
            (1, 13, 0, 0, 0, 1),
            "a body of 1 bytes is not allowed on WANT_SEGMENT here",
        ),
        (
            (1, 14, 0, 0, 3, 0),
            "a body of 1 bytes is not allowed on RETIRE here",
        ),
        (
            (1, 15, 0, 0, 3, 0),
            "a body of 1 bytes is not allowed on RELEASE here",
        ),
        (
            (1, 16, 0, 0, 0, 0),
            "a body of 1 bytes is not allowed on QUIET here",
        ),
    ];
    for ((length, kind, flags, metadata_bytes, id, value), said) in broken {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes[4..6].copy_from_slice(&[*kind, *flags]);
        bytes[6..8].copy_from_slice(&metadata_bytes.to_le_bytes());
        bytes[8..16].copy_from_slice(&id.to_le_bytes());
        bytes[16..20].copy_from_slice(&value.to_le_bytes());
        let error = FrameHeader::decode(&bytes).expect_err(said);
        assert_eq!(error.to_string(), *said);
    }
}

#[test]
fn status_that_cannot_be_written_whole_stays_readable_at_every_size() {
    let status = Status::new(Code::DataLoss, "ééé")
        .with_details([7; 9])
        .with_metadata(metadata());
    for max_body_bytes in 4..100 {
        let (header, body) = status.to_frame(5, max_body_bytes);
        assert!(body.len() <= max_body_bytes);
        assert_eq!(FrameHeader::decode(&header.encode()), Ok(header));
        let read = Status::from_frame(&header, &body).unwrap();
        assert!(status.message().starts_with(read.message()));
        assert_eq!(read.code(), Code::DataLoss);
    }
}
