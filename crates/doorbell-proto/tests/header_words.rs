//! What is read off a header without decoding it, against the decoded header; and how numbers in it are shown.

use doorbell_proto::frame::HeaderWords;
use doorbell_proto::{BlockId, CallId, Flags, FrameError, FrameHeader, FrameKind, MessageType};

fn words(bytes: [u8; 24]) -> HeaderWords {
    let (words, _) = bytes.as_chunks::<8>();
    std::array::from_fn(|index| u64::from_le_bytes(words[index]))
}

#[test]
fn bare_message_is_one_that_decoding_finds_bare() {
    let call = CallId::new(3, 7);
    let (mut bare, mut bare_calls) = (0, 0);
    for (kind, flags) in
        (0..=u8::MAX).flat_map(|kind| (0..=u8::MAX).map(move |flags| (kind, flags)))
    {
        for (id, metadata_bytes) in [(call.raw(), 0), (call.raw(), 8), (call.raw() + 1, 0)] {
            let mut bytes = [0; 24];
            bytes[0] = 100; // of body, more than any prefix here takes
            bytes[4] = kind;
            bytes[5] = flags;
            bytes[6] = metadata_bytes;
            bytes[8..16].copy_from_slice(&u64::to_le_bytes(id));
            bytes[16] = 9;
            let is_bare = |wanted| {
                FrameHeader::decode(&bytes).is_ok_and(|header| {
                    header.kind == wanted
                        && header.id == call.raw()
                        && header.flags.without(Flags::BODY_CRC) == Flags::NONE
                        && header.prefix_bytes() == 0
                })
            };
            let found = FrameHeader::bare_response(&words(bytes)) == Some(call);
            let shown = format!("kind {kind} flags {flags:#x} id {id}");
            assert_eq!(found, is_bare(FrameKind::Response), "{shown}");
            let bare_call = Some((call, MessageType::new(9)));
            let found_call = FrameHeader::bare_call(&words(bytes)) == bare_call;
            assert_eq!(found_call, is_bare(FrameKind::Call), "{shown}");
            bare_calls += usize::from(found_call);
            let covers_body = Flags::from_bits(flags).contains(Flags::BODY_CRC);
            assert_eq!(FrameHeader::covers_body_in(&words(bytes)), covers_body);
            bare += usize::from(found);
        }
    }
    assert_eq!(
        (bare, bare_calls),
        (2, 2),
        "with the checksum over the body, and without"
    );
}

#[test]
fn bare_frame_about_a_loan_is_one_that_decoding_finds_bare() {
    let call = CallId::new(3, 7);
    let block = BlockId::from_raw(call.raw());
    let mut found = [0; 3];
    for (kind, flags) in
        (0..=u8::MAX).flat_map(|kind| (0..=u8::MAX).map(move |flags| (kind, flags)))
    {
        for (length, metadata_bytes, value) in [
            (12, 0, 9),
            (0, 0, 0),
            (12, 0, 0),
            (0, 0, 9),
            (13, 0, 9),
            (12, 8, 9),
            (20, 8, 9),
        ] {
            let mut bytes = [0; 24];
            (bytes[0], bytes[4], bytes[5]) = (length, kind, flags);
            bytes[6] = metadata_bytes;
            bytes[8..16].copy_from_slice(&call.raw().to_le_bytes());
            bytes[16] = value;
            let header = FrameHeader::decode(&bytes).ok();
            let is_lent = |wanted| {
                header.is_some_and(|header| {
                    header.kind == wanted
                        && header.is_loaned()
                        && header.flags.without(Flags::BODY_CRC) == Flags::LOANED
                        && header.prefix_bytes() == 0
                })
            };
            let shown = format!("kind {kind} flags {flags:#x} length {length} {value}");
            let words = words(bytes);
            let response = FrameHeader::bare_lent_response(&words);
            assert_eq!(
                response == Some(call),
                is_lent(FrameKind::Response),
                "{shown}"
            );
            let request = FrameHeader::bare_lent_call(&words);
            let message_type = MessageType::new(u32::from(value));
            assert_eq!(
                request == Some((call, message_type)),
                is_lent(FrameKind::Call),
                "{shown}"
            );
            let release = FrameHeader::bare_release(&words);
            let is_release = header.is_some_and(|header| {
                header.kind == FrameKind::Release && header.flags == Flags::NONE
            });
            assert_eq!(release == Some(block), is_release, "{shown}");
            for (found, is_found) in
                found
                    .iter_mut()
                    .zip([response.is_some(), request.is_some(), release.is_some()])
            {
                *found += usize::from(is_found);
            }
        }
    }
    assert_eq!(
        found,
        [4, 4, 1],
        "of two values, with the checksum over the body and without; one that is empty"
    );
}

#[test]
fn checksum_is_the_same_in_words_and_in_bytes() {
    let mut header = FrameHeader::new(FrameKind::Call, 5, 7);
    header.flags = Flags::BODY_CRC;
    let mut bytes = header.encode();
    FrameHeader::set_crc(&mut bytes, 0xDEAD_BEEF);
    let words = words(bytes);
    assert_eq!(words, header.to_words(0xDEAD_BEEF));
    assert_eq!(FrameHeader::crc_in(&words), FrameHeader::crc(&bytes));
    assert_eq!(FrameHeader::from_words(words), Ok(header));
    assert!(header.covers_body());
}

#[test]
fn numbers_are_shown_as_a_reader_of_logs_needs_them() {
    assert_eq!(CallId::new(3, 7).to_string(), "3.7");
    assert_eq!(BlockId::new(2, 64).to_string(), "64 of segment 2");
    let changed = FrameError::MessageTypeChanged {
        expected: MessageType::new(1),
        found: MessageType::new(u32::MAX),
    };
    assert_eq!(
        changed.to_string(),
        "continuation has message type 4294967295, the first frame had 1"
    );
}
