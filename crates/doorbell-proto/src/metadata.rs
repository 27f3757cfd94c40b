//! Metadata: short named byte strings beside a message, such as a trace context or a token.
//!
//! An owned block keeps its entries in the encoding of the wire, so that reading one from a frame is one copy and writing it another.

use crate::limits::{MAX_METADATA_BYTES, MAX_METADATA_ENTRIES, MAX_METADATA_KEY_BYTES};
use std::fmt;

/// Named byte strings, in order of insertion; a key may repeat.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    count: u16,
    entries: Vec<u8>,
}

impl Metadata {
    /// Returns an empty block.
    pub const fn new() -> Self {
        Self {
            count: 0,
            entries: Vec::new(),
        }
    }

    /// Appends an entry; entries with the same key stay.
    ///
    /// # Errors
    ///
    /// [`MetadataError`] if the key is not valid or the block would exceed a limit. Nothing has changed then.
    pub fn insert(&mut self, key: &str, value: &[u8]) -> Result<(), MetadataError> {
        check_key(key.as_bytes())?;
        if self.len() >= MAX_METADATA_ENTRIES {
            return Err(MetadataError::TooManyEntries {
                entries: self.len().saturating_add(1),
            });
        }
        let added = ENTRY_HEADER_BYTES
            .saturating_add(key.len())
            .saturating_add(value.len());
        let bytes = padded(self.entries.len().saturating_add(added));
        let (Ok(key_bytes), Ok(value_bytes)) =
            (u8::try_from(key.len()), u16::try_from(value.len()))
        else {
            return Err(MetadataError::TooLarge { bytes });
        };
        if bytes > MAX_METADATA_BYTES {
            return Err(MetadataError::TooLarge { bytes });
        }
        self.entries.push(key_bytes);
        self.entries.extend_from_slice(&value_bytes.to_le_bytes());
        self.entries.extend_from_slice(key.as_bytes());
        self.entries.extend_from_slice(value);
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    /// Returns the first value of `key`.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.iter()
            .find(|(found, _)| *found == key)
            .map(|(_, value)| value)
    }

    /// Returns every value of `key`, in order of insertion.
    pub fn get_all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.iter()
            .filter(move |(found, _)| *found == key)
            .map(|(_, value)| value)
    }

    /// Returns all entries, in order of insertion.
    pub fn iter(&self) -> Entries<'_> {
        Entries {
            rest: &self.entries,
        }
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Returns `true` if there are no entries.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the size on the wire: a multiple of 8, or 0 for an empty block.
    pub fn encoded_bytes(&self) -> usize {
        if self.is_empty() {
            0
        } else {
            padded(self.entries.len())
        }
    }

    /// Appends the block to `out`; an empty block is nothing at all.
    pub fn encode(&self, out: &mut Vec<u8>) {
        if self.is_empty() {
            return;
        }
        let end = out.len().saturating_add(self.encoded_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.entries);
        out.resize(end, 0);
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for &'a Metadata {
    type Item = (&'a str, &'a [u8]);
    type IntoIter = Entries<'a>;

    fn into_iter(self) -> Entries<'a> {
        self.iter()
    }
}

/// A checked metadata block inside a frame.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct MetadataRef<'a> {
    count: u16,
    entries: &'a [u8],
}

impl<'a> MetadataRef<'a> {
    /// Checks a block as it is on the wire.
    ///
    /// # Errors
    ///
    /// [`MetadataError`] if the block breaks a rule of the wire format.
    pub fn parse(block: &'a [u8]) -> Result<Self, MetadataError> {
        if block.len() > MAX_METADATA_BYTES || !block.len().is_multiple_of(8) {
            return Err(MetadataError::TooLarge { bytes: block.len() });
        }
        let (count, body) = block.split_first_chunk().ok_or(MetadataError::Truncated)?;
        let count = u16::from_le_bytes(*count);
        if count == 0 {
            return Err(MetadataError::Empty);
        }
        if usize::from(count) > MAX_METADATA_ENTRIES {
            return Err(MetadataError::TooManyEntries {
                entries: usize::from(count),
            });
        }
        let mut rest = body;
        for _ in 0..count {
            let (key, _, after) = split_entry(rest).ok_or(MetadataError::Truncated)?;
            check_key(key)?;
            rest = after;
        }
        check_padding(rest)?;
        let entries = body.strip_suffix(rest).unwrap_or(body);
        Ok(Self { count, entries })
    }

    /// Returns all entries, in order.
    pub fn iter(&self) -> Entries<'a> {
        Entries { rest: self.entries }
    }

    /// Returns the first value of `key`.
    pub fn get(&self, key: &str) -> Option<&'a [u8]> {
        self.iter()
            .find(|(found, _)| *found == key)
            .map(|(_, value)| value)
    }

    /// Returns a copy that lives on its own.
    pub fn to_owned(&self) -> Metadata {
        Metadata {
            count: self.count,
            entries: self.entries.to_vec(),
        }
    }

    /// Returns a copy that lives on its own, or `None` without allocation if there are no entries.
    #[inline]
    pub fn to_option(&self) -> Option<Metadata> {
        if self.is_empty() {
            None
        } else {
            Some(self.to_owned())
        }
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Returns `true` if there are no entries.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl fmt::Debug for MetadataRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Iterator over the entries of a metadata block.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, value, rest) = split_entry(self.rest)?;
        self.rest = rest;
        Some((std::str::from_utf8(key).ok()?, value)) // keys are checked to be ASCII
    }
}

/// Why a metadata entry or block is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// A key is empty, longer than 255 bytes, or has a byte outside `a-z 0-9 - _ .`.
    #[error("key of {key_bytes} bytes is empty, too long or has a byte outside a-z 0-9 - _ .")]
    Key {
        /// Length of the key.
        key_bytes: usize,
    },
    /// More than 64 entries.
    #[error("{entries} entries, at most {MAX_METADATA_ENTRIES} are allowed")]
    TooManyEntries {
        /// Number of entries.
        entries: usize,
    },
    /// The block is larger than allowed, or its size is not a multiple of 8.
    #[error("block of {bytes} bytes, at most {MAX_METADATA_BYTES} and a multiple of 8 are allowed")]
    TooLarge {
        /// Size of the block.
        bytes: usize,
    },
    /// The block ends inside an entry.
    #[error("block ends inside an entry")]
    Truncated,
    /// The block has no entries; then it must be absent.
    #[error("block is present but has no entries")]
    Empty,
    /// The padding is not zero, or 8 bytes or more.
    #[error("{bytes} bytes after the last entry are not padding")]
    Padding {
        /// Bytes after the last entry.
        bytes: usize,
    },
}

fn check_key(key: &[u8]) -> Result<(), MetadataError> {
    let valid = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    if key.is_empty() || key.len() > MAX_METADATA_KEY_BYTES || !key.iter().all(valid) {
        return Err(MetadataError::Key {
            key_bytes: key.len(),
        });
    }
    Ok(())
}

fn check_padding(rest: &[u8]) -> Result<(), MetadataError> {
    if rest.len() < 8 && rest.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    Err(MetadataError::Padding { bytes: rest.len() })
}

/// Splits an entry off: key, value, rest.
fn split_entry(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let ([key_bytes, v0, v1], rest) = bytes.split_first_chunk()?;
    let (key, rest) = rest.split_at_checked(usize::from(*key_bytes))?;
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([*v0, *v1])))?;
    Some((key, value, rest))
}

/// Size of a block with `entry_bytes` of entries.
const fn padded(entry_bytes: usize) -> usize {
    entry_bytes.saturating_add(COUNT_BYTES + 7) & !7
}

const COUNT_BYTES: usize = 2;
const ENTRY_HEADER_BYTES: usize = 3;

#[cfg(test)]
#[path = "metadata_tests.rs"]
mod tests;
