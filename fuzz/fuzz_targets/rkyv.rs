//! Bodies by rkyv: bytes from a peer into a type of a program. What can be read is sent again and comes back.

#![no_main]

use doorbell::{Incoming, Payload};
use libfuzzer_sys::fuzz_target;

/// Everything that an offset, a length, a variant or a text can be wrong in.
#[derive(Debug, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, Payload)]
#[payload(rkyv)]
struct Body {
    text: String,
    words: Vec<String>,
    wide: Vec<u128>,
    choice: Choice,
    boxed: Option<Box<[u16]>>,
    pairs: Vec<(bool, char)>,
}

#[derive(Debug, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
enum Choice {
    Nothing,
    Number(u64),
    Named { name: String, live: bool },
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = Body::decode(Incoming::Borrowed(bytes)) else {
        return;
    };
    let mut encoded = Vec::new();
    value
        .encode(&mut encoded)
        .expect("a value that was read can be written");
    let back = Body::decode(Incoming::Owned(encoded)).expect("what was written can be read");
    assert_eq!(back, value);
});
