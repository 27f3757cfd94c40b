//! Bodies by serde and postcard: bytes from a peer into a type of a program. What can be read is sent again and comes back.

#![no_main]

use doorbell::{Incoming, Payload};
use libfuzzer_sys::fuzz_target;

/// Everything that a length, a variant, a number or a text can be wrong in.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Body {
    text: String,
    words: Vec<String>,
    wide: Vec<u128>,
    signed: (i8, i16, i32, i64),
    real: (f32, f64),
    choice: Choice,
    boxed: Option<Box<[u16]>>,
    pairs: Vec<(bool, char)>,
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
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
    let back = Body::decode(Incoming::Borrowed(&encoded)).expect("what was written can be read");
    let mut again = Vec::new();
    back.encode(&mut again)
        .expect("a value that was read can be written");
    assert_eq!(again, encoded); // not the values: a float need not equal itself
});
