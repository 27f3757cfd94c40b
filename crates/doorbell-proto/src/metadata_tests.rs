//! Every rule of the metadata block, broken once.

use super::*;
use proptest::prelude::*;

fn encoded(metadata: &Metadata) -> Vec<u8> {
    let mut block = Vec::new();
    metadata.encode(&mut block);
    block
}

/// A block with one entry, built by hand.
fn block(count: u16, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut block = count.to_le_bytes().to_vec();
    block.push(u8::try_from(key.len()).unwrap());
    block.extend_from_slice(&u16::try_from(value.len()).unwrap().to_le_bytes());
    block.extend_from_slice(key);
    block.extend_from_slice(value);
    block.resize(block.len().next_multiple_of(8), 0);
    block
}

#[test]
fn empty_metadata_takes_no_bytes() {
    assert_eq!(
        (encoded(&Metadata::new()), Metadata::new().encoded_bytes()),
        (vec![], 0)
    );
}

#[test]
fn repeated_key_keeps_every_value_in_order() {
    let mut metadata = Metadata::new();
    for (key, value) in [("a", "1"), ("b", "2"), ("a", "3")] {
        metadata.insert(key, value.as_bytes()).unwrap();
    }
    assert_eq!(metadata.get("a"), Some(&b"1"[..]));
    assert_eq!(metadata.get_all("a").collect::<Vec<_>>(), [b"1", b"3"]);
    assert_eq!((metadata.get("c"), metadata.len()), (None, 3));
    let block = encoded(&metadata);
    let parsed = MetadataRef::parse(&block).unwrap();
    assert_eq!(
        (parsed.get("b"), parsed.len(), parsed.is_empty()),
        (Some(&b"2"[..]), 3, false)
    );
    assert_eq!(format!("{parsed:?}"), format!("{metadata:?}"));
    let entries: Vec<_> = (&metadata).into_iter().collect();
    assert_eq!(entries, parsed.iter().collect::<Vec<_>>());
}

#[test]
fn key_outside_the_alphabet_is_rejected_on_both_ways() {
    for key in ["", "Key", "a b", "ü", "a\0"] {
        let error = MetadataError::Key {
            key_bytes: key.len(),
        };
        assert_eq!(Metadata::new().insert(key, b""), Err(error));
        assert_eq!(
            MetadataRef::parse(&block(1, key.as_bytes(), b"")),
            Err(error)
        );
    }
    assert_eq!(
        Metadata::new().insert(&"k".repeat(256), b""),
        Err(MetadataError::Key { key_bytes: 256 })
    );
    assert_eq!(Metadata::new().insert(&"k".repeat(255), b""), Ok(()));
}

#[test]
fn entries_beyond_the_limit_are_rejected_on_both_ways() {
    let mut metadata = Metadata::new();
    for _ in 0..64 {
        metadata.insert("k", b"").unwrap();
    }
    let full = metadata.clone();
    assert_eq!(
        metadata.insert("k", b""),
        Err(MetadataError::TooManyEntries { entries: 65 })
    );
    assert_eq!(metadata, full);
    assert_eq!(
        MetadataRef::parse(&block(65, b"k", b"")),
        Err(MetadataError::TooManyEntries { entries: 65 })
    );
}

#[test]
fn block_beyond_the_limit_is_rejected_on_both_ways() {
    let mut metadata = Metadata::new();
    metadata.insert("k", &[0; 16_384 - 6]).unwrap();
    assert_eq!(metadata.encoded_bytes(), 16_384);
    assert_eq!(
        metadata.insert("k", b""),
        Err(MetadataError::TooLarge { bytes: 16_392 })
    );
    assert!(matches!(
        metadata.insert("k", &[0; 70_000]),
        Err(MetadataError::TooLarge { .. })
    ));
    assert!(MetadataRef::parse(&encoded(&metadata)).is_ok());
    assert_eq!(
        MetadataRef::parse(&[0; 16_392]),
        Err(MetadataError::TooLarge { bytes: 16_392 })
    );
    assert_eq!(
        MetadataRef::parse(&[0; 12]),
        Err(MetadataError::TooLarge { bytes: 12 })
    );
}

#[test]
fn block_that_ends_inside_an_entry_is_rejected() {
    let mut block = block(1, b"key", b"value");
    block[3] = 200; // bytes of value
    assert_eq!(MetadataRef::parse(&block), Err(MetadataError::Truncated));
    assert_eq!(MetadataRef::parse(&[]), Err(MetadataError::Truncated));
}

#[test]
fn block_without_entries_is_rejected() {
    assert_eq!(MetadataRef::parse(&[0; 8]), Err(MetadataError::Empty));
}

#[test]
fn padding_that_is_not_zero_or_too_long_is_rejected() {
    let mut dirty = block(1, b"k", b"");
    dirty[7] = 1;
    assert_eq!(
        MetadataRef::parse(&dirty),
        Err(MetadataError::Padding { bytes: 2 })
    );
    let mut long = block(1, b"k", b"");
    long.resize(16, 0);
    assert_eq!(
        MetadataRef::parse(&long),
        Err(MetadataError::Padding { bytes: 10 })
    );
}

proptest! {
    #[test]
    fn metadata_survives_the_codec(entries in proptest::collection::vec(("[a-z0-9._-]{1,20}", any::<Vec<u8>>()), 1..20)) {
        let mut metadata = Metadata::new();
        for (key, value) in &entries {
            metadata.insert(key, value).unwrap();
        }
        let block = encoded(&metadata);
        prop_assert_eq!(block.len(), metadata.encoded_bytes());
        let parsed = MetadataRef::parse(&block).unwrap();
        prop_assert_eq!(parsed.to_owned(), metadata);
        let found: Vec<_> = parsed.iter().map(|(key, value)| (key.to_owned(), value.to_vec())).collect();
        prop_assert_eq!(found, entries);
    }

    #[test]
    fn block_that_parses_is_the_only_encoding_of_its_entries(mut block in any::<Vec<u8>>(), count in 0..3u8) {
        block.resize(block.len().next_multiple_of(8), 0);
        if let Some(start) = block.first_chunk_mut() {
            *start = [count, 0, 1, 2, 0, b'k'];
        }
        if let Ok(parsed) = MetadataRef::parse(&block) {
            prop_assert_eq!(encoded(&parsed.to_owned()), block);
        }
    }
}
