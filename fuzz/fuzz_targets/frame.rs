//! One frame: header, body, metadata, status, packed messages. What can be read is written again and must be the same.

#![no_main]

use std::convert::Infallible;

use doorbell_proto::{
    Body, FrameHeader, FrameKind, HEADER_BYTES, Metadata, MetadataRef, Prefix, Status,
    frame::{Packed, pack, packed_at},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((bytes, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return;
    };
    if let Ok(block) = MetadataRef::parse(body) {
        rewrite_metadata(block, body);
    }
    let Ok(header) = FrameHeader::decode(bytes) else {
        return;
    };
    let mut encoded = header.encode();
    FrameHeader::set_crc(&mut encoded, FrameHeader::crc(bytes));
    assert_eq!(encoded, *bytes, "one header, one encoding");
    // The ring has handed over as many bytes as the header says, or there is no frame.
    let body = usize::try_from(header.length)
        .ok()
        .and_then(|length| body.get(..length));
    let Some(body) = body else { return };
    if header.kind == FrameKind::Error {
        rewrite_status(&header, body);
    } else {
        rewrite_body(&header, body);
    }
});

fn rewrite_metadata(block: MetadataRef<'_>, bytes: &[u8]) {
    let mut metadata = Metadata::default();
    for (key, value) in block.iter() {
        metadata
            .insert(key, value)
            .expect("what arrived within the limits can be sent");
    }
    let mut encoded = Vec::new();
    metadata.encode(&mut encoded);
    assert_eq!((encoded.as_slice(), metadata.len()), (bytes, block.len()));
}

fn rewrite_body(header: &FrameHeader, bytes: &[u8]) {
    let Ok(body) = Body::parse(header, bytes) else {
        return;
    };
    let metadata = body.metadata.to_option();
    let prefix = Prefix {
        remaining: body.remaining,
        total_bytes: body.total_bytes,
        metadata: metadata.as_ref(),
    };
    let mut encoded = Vec::new();
    prefix.encode(&mut encoded);
    encoded.extend_from_slice(body.payload);
    assert_eq!(encoded, bytes);
    check_prefix(header, &prefix, body.payload.len());
    if header.is_packed() {
        repack(header, body.payload);
    }
}

/// The header that a sender would make for this body says the same of it. (A sender alone knows whether more frames follow.)
fn check_prefix(header: &FrameHeader, prefix: &Prefix<'_>, payload_bytes: usize) {
    let mut again = FrameHeader::new(header.kind, header.id, header.value);
    again.flags = header.flags;
    assert!(prefix.set_header(&mut again, payload_bytes));
    assert_eq!(again, *header);
}

fn repack(header: &FrameHeader, bytes: &[u8]) {
    let Ok(messages) = Packed::parse(header, bytes) else {
        return;
    };
    let (total, longest) = (messages.total(), messages.longest_bytes());
    let (mut again, mut count, mut at) = (Vec::with_capacity(bytes.len()), 0, 0);
    for message in messages {
        assert!(message.len() <= longest);
        let (same, next) = packed_at(bytes, at).expect("what was counted is there");
        assert_eq!(same, message);
        let packed = pack(&mut again, |out| {
            out.extend_from_slice(message);
            Ok::<_, Infallible>(())
        });
        assert_eq!(packed, Ok(()));
        (at, count) = (next, count + 1);
    }
    assert_eq!((again.as_slice(), count), (bytes, total));
}

fn rewrite_status(header: &FrameHeader, bytes: &[u8]) {
    let Ok(status) = Status::from_frame(header, bytes) else {
        return;
    };
    let (again, body) = status.to_frame(header.id, usize::MAX);
    let back = Status::from_frame(&again, &body).expect("a status of our own");
    assert_eq!(back.message(), status.message());
    assert_eq!(
        (back.code(), back.was_executed()),
        (status.code(), status.was_executed())
    );
    assert!(FrameHeader::decode(&again.encode()).is_ok());
}
