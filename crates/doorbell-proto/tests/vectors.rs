//! The vectors in `docs/wire-format.md` and `docs/handshake.md`, both ways.

use doorbell_proto::handshake::{
    BellKind, BellKinds, Features, Hello, Message, RefuseReason, Refused, VersionRange, Welcome,
};
use doorbell_proto::{
    Body, Code, Descriptor, Flags, FrameHeader, FrameKind, GoAwayReason, HEADER_BYTES, Metadata,
    MetadataRef, Prefix, Status,
};
use doorbell_proto::{
    crc::crc32c,
    frame::{CHECKED_HEADER_BYTES, Packed, pack},
    metadata,
};

fn text_of(page: &str) -> String {
    let path = format!("{}/../../docs/{page}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the numbers and names that the sentence beginning with `start` enumerates.
fn enumerated(page: &str, start: &str) -> Vec<(u32, String)> {
    let text = text_of(page);
    let (_, rest) = text.split_once(start).expect("the sentence is there");
    let (items, _) = rest.split_once('.').expect("a sentence ends");
    let item = |item: &str| {
        let (number, name) = item.trim().split_once(' ').expect("number and name");
        (number.parse().expect("a number"), name.to_owned())
    };
    items.split(',').map(item).collect()
}

/// Returns the rows of the table below `heading`, cell by cell, without backticks.
fn rows(page: &str, heading: &str) -> Vec<Vec<String>> {
    let text = text_of(page);
    let table = text.lines().skip_while(|line| *line != heading).skip(1);
    let table = table
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'));
    let cells = |line: &str| {
        line.trim_matches('|')
            .split('|')
            .map(|cell| cell.replace('`', "").trim().to_owned())
            .collect()
    };
    let rows: Vec<_> = table.skip(2).map(cells).collect();
    assert!(!rows.is_empty(), "no table below {heading} in {page}");
    rows
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex
        .chars()
        .map(|digit| digit.to_digit(16).expect("hexadecimal") as u8)
        .collect();
    digits
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

fn number(text: &str) -> u64 {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).unwrap(),
        None => text.parse().unwrap(),
    }
}

fn narrow<T: TryFrom<u64, Error: std::fmt::Debug>>(text: &str) -> T {
    T::try_from(number(text)).unwrap()
}

fn kind(name: &str) -> FrameKind {
    (1..=16)
        .filter_map(FrameKind::from_u8)
        .find(|kind| kind.name() == name)
        .expect("a kind")
}

fn flags(names: &str) -> Flags {
    let flag = |name: &str| match name {
        "MORE" => Flags::MORE,
        "CONTINUE" => Flags::CONTINUE,
        "DEADLINE" => Flags::DEADLINE,
        "BODY_CRC" => Flags::BODY_CRC,
        "UPLOAD" => Flags::UPLOAD,
        "STREAMING" => Flags::STREAMING,
        "NOT_EXECUTED" => Flags::NOT_EXECUTED,
        "PACKED" => Flags::PACKED,
        "LOANED" => Flags::LOANED,
        name => panic!("flag {name}"),
    };
    names
        .split_whitespace()
        .map(flag)
        .fold(Flags::NONE, Flags::with)
}

/// Writes the body again from its parts.
fn rewritten(header: &FrameHeader, body: &[u8]) -> Vec<u8> {
    match header.kind {
        FrameKind::Error => {
            let status = Status::from_frame(header, body).unwrap();
            let (again, body) = status.to_frame(header.id, 1000);
            let checked = FrameHeader {
                flags: again.flags.with(Flags::BODY_CRC),
                ..again
            };
            assert_eq!(checked, *header);
            body
        }
        FrameKind::Call | FrameKind::Response | FrameKind::Data | FrameKind::Notify => {
            let parts = Body::parse(header, body).unwrap();
            let metadata = parts.metadata.to_option();
            let prefix = Prefix {
                remaining: parts.remaining,
                total_bytes: parts.total_bytes,
                metadata: metadata.as_ref(),
            };
            let mut out = Vec::new();
            prefix.encode(&mut out);
            if header.is_packed() {
                for message in Packed::parse(header, parts.payload).unwrap() {
                    let written = pack(&mut out, |out| {
                        out.extend_from_slice(message);
                        Ok::<_, std::convert::Infallible>(())
                    });
                    written.unwrap();
                }
            } else if header.is_loaned() {
                let loan = Descriptor::decode(parts.payload).unwrap();
                out.extend_from_slice(&loan.encode());
            } else {
                out.extend_from_slice(parts.payload);
            }
            out
        }
        _ => body.to_vec(),
    }
}

#[test]
fn frame_vectors_hold_both_ways() {
    let rows = rows("wire-format.md", "### Frames");
    for row in &rows {
        let [
            name,
            kind_name,
            flag_names,
            metadata_bytes,
            id,
            value,
            body,
            encoded,
        ] = row.as_slice()
        else {
            panic!("{row:?}")
        };
        let (body, encoded) = (bytes(body), bytes(encoded));
        let header = FrameHeader {
            length: u32::try_from(body.len()).unwrap(),
            kind: kind(kind_name),
            flags: flags(flag_names),
            metadata_bytes: narrow(metadata_bytes),
            id: number(id),
            value: narrow(value),
        };
        let mut written = header.encode();
        let covered = if header.covers_body() { &body[..] } else { &[] };
        let crc = crc32c(crc32c(0, &written[..CHECKED_HEADER_BYTES]), covered);
        FrameHeader::set_crc(&mut written, crc);
        assert_eq!(written[..], encoded[..], "{name}");
        let encoded: [u8; HEADER_BYTES] = encoded.try_into().unwrap();
        assert_eq!(FrameHeader::decode(&encoded), Ok(header), "{name}");
        assert_eq!(rewritten(&header, &body), body, "{name}");
    }
    let kinds: std::collections::HashSet<_> = rows.iter().map(|row| row[1].clone()).collect();
    assert_eq!(kinds.len(), 16, "every kind has a vector");
}

#[test]
fn metadata_vectors_hold_both_ways() {
    for row in rows("wire-format.md", "### Metadata blocks") {
        let mut expected = Metadata::new();
        for entry in row[0].split(',') {
            let (key, value) = entry.split_once('=').unwrap();
            expected.insert(key.trim(), &bytes(value.trim())).unwrap();
        }
        let block = bytes(&row[1]);
        assert_eq!(
            MetadataRef::parse(&block).map(|parsed| parsed.to_owned()),
            Ok::<_, metadata::MetadataError>(expected.clone())
        );
        let mut written = Vec::new();
        expected.encode(&mut written);
        assert_eq!(written, block);
    }
}

#[test]
fn headers_that_must_be_rejected_are() {
    for row in rows("wire-format.md", "### Headers that must be rejected") {
        let header: [u8; HEADER_BYTES] = bytes(&row[1]).try_into().unwrap();
        assert!(FrameHeader::decode(&header).is_err(), "{}", row[0]);
    }
}

#[test]
fn kinds_have_the_names_and_numbers_of_the_document() {
    for row in rows("wire-format.md", "### Kinds") {
        let name = FrameKind::from_u8(narrow(&row[0])).map(|kind| kind.to_string());
        let expected = Some(row[1].clone()).filter(|name| name != "PAD"); // which is the ring's
        assert_eq!(name, expected);
    }
}

#[test]
fn codes_and_reasons_have_the_names_and_numbers_of_the_document() {
    let codes = enumerated("wire-format.md", "Those of gRPC: ");
    assert_eq!(codes.len(), 17);
    for (number, name) in codes {
        let code = Code::from_u32(number).expect(&name);
        assert_eq!((code.to_string(), code.as_u32()), (name, number));
    }
    let reasons = enumerated("wire-format.md", "`GOAWAY` reasons: ");
    assert_eq!(reasons.len(), 4);
    for (number, name) in reasons {
        let reason = GoAwayReason::from_u32(number).expect(&name);
        assert_eq!((reason.to_string(), reason.as_u32()), (name, number));
    }
}

#[test]
fn handshake_vectors_hold_both_ways() {
    let rows = rows("handshake.md", "## Test vectors");
    for row in &rows {
        let message = message(&row[0], &row[1]);
        let encoded = bytes(&row[2]);
        assert_eq!(message.encode(), encoded, "{}", row[1]);
        assert_eq!(
            Message::decode(&encoded),
            Ok(Some((message, encoded.len())))
        );
    }
    assert!(rows.len() >= 3);
}

fn message(kind: &str, fields: &str) -> Message {
    let mut rest = fields;
    let mut next = || {
        let (field, after) = rest.split_once(' ').unwrap_or((rest, ""));
        rest = after;
        number(field)
    };
    let count = if kind == "Hello" {
        7
    } else if kind == "Welcome" {
        9
    } else {
        3
    };
    let numbers: Vec<u64> = (0..count).map(|_| next()).collect();
    let narrow = |index: usize| u32::try_from(numbers[index]).unwrap();
    let tiny = |index: usize| u16::try_from(numbers[index]).unwrap();
    let bits = |index: usize| u8::try_from(numbers[index]).unwrap();
    match kind {
        "Hello" => Message::Hello(Hello {
            versions: VersionRange {
                min: tiny(0),
                max: tiny(1),
            },
            features: Features::from_bits(numbers[2]),
            ring_capacity_bytes: narrow(3),
            receive_window_bytes: narrow(4),
            max_message_bytes: numbers[5],
            bells: BellKinds::from_bits(bits(6)),
            name: rest.to_owned(),
        }),
        "Welcome" => Message::Welcome(Welcome {
            version: tiny(0),
            features: Features::from_bits(numbers[1]),
            server_ring_capacity_bytes: narrow(2),
            client_ring_capacity_bytes: narrow(3),
            max_calls: narrow(4),
            receive_window_bytes: narrow(5),
            max_message_bytes: numbers[6],
            max_chunk_bytes: narrow(7),
            bell: BellKind::from_u8(bits(8)).unwrap(),
        }),
        "Refused" => Message::Refused(Refused {
            reason: RefuseReason::from_u16(tiny(0)),
            versions: VersionRange {
                min: tiny(1),
                max: tiny(2),
            },
            text: rest.to_owned(),
        }),
        kind => panic!("message {kind}"),
    }
}
