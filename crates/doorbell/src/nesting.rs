//! Decoding of values that contain values of their own type, as deep as a peer likes.
//!
//! Such a value is decoded by a function that calls itself, once for each level, and a level takes no more than a byte of the message: a
//! megabyte would take more stack than any thread has, and the process would end. So the input watches the stack while it is read.

use std::cell::Cell;

use postcard::{
    Deserializer, Error, Result,
    de_flavors::{Flavor, Slice},
};
use serde::de::DeserializeOwned;

/// Why a value was not decoded.
pub(crate) enum Failed {
    /// It is nested too deeply.
    TooDeep,
    /// It is no value of its type.
    Invalid(Error),
}

/// Decodes a value and returns it with what follows it.
#[inline]
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> std::result::Result<(T, &[u8]), Failed> {
    // Not deep, whatever it says: each level takes a byte.
    if bytes.len() <= SHALLOW_BYTES {
        return postcard::take_from_bytes(bytes).map_err(Failed::Invalid);
    }
    decode_watched(bytes)
}

fn decode_watched<T: DeserializeOwned>(bytes: &[u8]) -> std::result::Result<(T, &[u8]), Failed> {
    let too_deep = Cell::new(false);
    let mut rest = bytes.len();
    let value = {
        let mut deserializer = Deserializer::from_flavor(Watched {
            bytes: Slice::new(bytes),
            start: stack_address(),
            too_deep: &too_deep,
        });
        let value = T::deserialize(&mut deserializer);
        if let Ok(left) = deserializer.finalize() {
            rest = left.len();
        }
        value
    };
    match value {
        Ok(value) => Ok((value, &bytes[bytes.len() - rest..])),
        Err(_) if too_deep.get() => Err(Failed::TooDeep),
        Err(error) => Err(Failed::Invalid(error)),
    }
}

/// Input that ends when its reader has used up its share of the stack.
struct Watched<'de> {
    bytes: Slice<'de>,
    start: usize,
    too_deep: &'de Cell<bool>,
}

impl Watched<'_> {
    #[inline]
    fn check(&self) -> Result<()> {
        if stack_address().abs_diff(self.start) > MAX_STACK_BYTES {
            self.too_deep.set(true);
            return Err(Error::DeserializeBadEncoding);
        }
        Ok(())
    }
}

impl<'de> Flavor<'de> for Watched<'de> {
    type Remainder = &'de [u8];
    type Source = &'de [u8];

    #[inline]
    fn pop(&mut self) -> Result<u8> {
        self.check()?;
        self.bytes.pop()
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.bytes.size_hint()
    }

    #[inline]
    fn try_take_n(&mut self, count: usize) -> Result<&'de [u8]> {
        self.bytes.try_take_n(count)
    }

    fn finalize(self) -> Result<&'de [u8]> {
        self.bytes.finalize()
    }
}

/// Where the stack has come to, about.
#[inline]
fn stack_address() -> usize {
    let here = 0_u8;
    std::ptr::from_ref(std::hint::black_box(&here)).addr()
}

/// A level took 160 to 470 bytes with three types and optimisation, 940 to 1590 without: both are enough for 130 levels, about as many as JSON
/// libraries allow, and an eighth at most of the stack of a worker, or of a thread that nobody has chosen another size for. By its depth a message then takes 15 µs of a worker, in which that answers nobody. Debug assertions stand for a build without
/// optimisation; one that has neither is left with 40 levels.
const MAX_STACK_BYTES: usize = if cfg!(debug_assertions) {
    256 << 10
} else {
    64 << 10
};

/// So many levels fit into any stack.
const SHALLOW_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use crate::message::{Incoming, Payload};
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize, Debug, PartialEq)]
    struct Tree(Vec<Tree>);

    fn of_depth(levels: usize) -> Vec<u8> {
        [vec![1; levels], vec![0]].concat()
    }

    #[test]
    fn nesting_without_end_is_refused() {
        for bytes in [of_depth(1_000_000), vec![1; 1_000_000]] {
            let error = <Tree as Payload>::decode(Incoming::Owned(bytes)).unwrap_err();
            assert!(error.to_string().contains("nested too deeply"), "{error}");
        }
    }

    #[test]
    fn nesting_of_a_hundred_levels_and_a_wide_value_are_decoded() {
        let mut tree = <Tree as Payload>::decode(Incoming::Owned(of_depth(100))).unwrap();
        let mut depth = 0;
        while let Some(inner) = tree.0.pop() {
            (tree, depth) = (inner, depth + 1);
        }
        assert_eq!(depth, 100);
        let wide = [vec![0x90, 0x4E], vec![0; 10_000]].concat();
        let tree = <Tree as Payload>::decode(Incoming::Owned(wide)).unwrap();
        assert_eq!(tree.0.len(), 10_000);
    }

    #[test]
    fn long_value_is_decoded_to_its_last_byte_and_no_further() {
        let text = "x".repeat(1000);
        let mut bytes = Vec::new();
        (text.clone(), 7_u32).encode(&mut bytes).unwrap();
        let decoded = <(String, u32)>::decode(Incoming::Borrowed(&bytes)).unwrap();
        assert_eq!(decoded, (text, 7));
        bytes.push(0);
        let error = <(String, u32)>::decode(Incoming::Borrowed(&bytes)).unwrap_err();
        assert!(error.to_string().contains("1 bytes follow"), "{error}");
    }
}
