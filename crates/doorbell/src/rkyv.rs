//! Payloads encoded with rkyv, for `#[payload(rkyv)]`.
//!
//! # Trust
//!
//! The bytes come from a peer. They are validated in full, on private memory that no longer changes, before any of them is
//! believed: every offset lies inside the message, no two parts overlap, and parts are nested at most [`MAX_DEPTH`] deep. The
//! validator has no table of shared pointers, so that types with `Rc` or `Arc` do not compile as payloads; a value therefore is
//! never larger than a constant times its message, with one exception that only the author of a message type can make: a
//! sequence of elements without size has a length and no bytes.

use std::mem::MaybeUninit;
use std::num::NonZeroUsize;

use ::rkyv::api::{access_with_context, low};
use ::rkyv::bytecheck::CheckBytes;
use ::rkyv::rancor::Error;
use ::rkyv::ser::allocator::ArenaHandle;
use ::rkyv::ser::{Positional, Writer};
use ::rkyv::util::{AlignedVec, with_arena};
use ::rkyv::validation::{Validator, archive::ArchiveValidator};
use ::rkyv::{Archive, Deserialize, Serialize};

use crate::message::{DecodeError, EncodeError};

/// Deepest nesting of boxes and sequences in a message. Validation and reading call themselves once for each level, and a
/// thread's stack is finite.
const MAX_DEPTH: usize = 128;

/// The same as the validator counts: the message itself is a level, and it stops when its count falls to zero.
const VALIDATOR_DEPTH: NonZeroUsize = NonZeroUsize::new(MAX_DEPTH + 2).unwrap();

/// Largest alignment of anything in an archive, that of `u128`.
const ALIGNMENT: usize = 16;

/// A type that rkyv can write, validate and read, without shared pointers. Implemented for all such types.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel by rkyv",
    note = "derive `rkyv::Archive`, `rkyv::Serialize` and `rkyv::Deserialize`, and use no shared pointers such as `Rc` and `Arc`"
)]
pub trait RkyvPayload:
    Sized
    + Archive<
        Archived: for<'a> CheckBytes<low::LowValidator<'a, Error>>
                      + Deserialize<Self, low::LowDeserializer<Error>>,
    > + for<'a> Serialize<low::LowSerializer<Append<'a>, ArenaHandle<'a>, Error>>
    + for<'a> Serialize<low::LowSerializer<Place<'a>, ArenaHandle<'a>, Error>>
{
}

impl<T> RkyvPayload for T
where
    T: Archive
        + for<'a> Serialize<low::LowSerializer<Append<'a>, ArenaHandle<'a>, Error>>
        + for<'a> Serialize<low::LowSerializer<Place<'a>, ArenaHandle<'a>, Error>>,
    T::Archived: for<'a> CheckBytes<low::LowValidator<'a, Error>>
        + Deserialize<T, low::LowDeserializer<Error>>,
{
}

/// Appends the archive of `value` to `out`.
///
/// # Errors
///
/// [`EncodeError`] if a part of the value refuses, for example because an offset does not fit into 32 bits.
pub fn encode<T: RkyvPayload>(value: &T, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let append = Append {
        start: out.len(),
        out,
    };
    with_arena(|arena| low::to_bytes_in_with_alloc(value, append, arena.acquire()).map(drop))
        .map_err(|error: Error| EncodeError::new(error))
}

/// Writes the archive of `value` to the beginning of `place`, which is aligned, and returns how many bytes it has. If that is more than
/// there are, what was written is of no use.
///
/// # Errors
///
/// [`EncodeError`] if a part of the value refuses.
pub(crate) fn encode_into<T: RkyvPayload>(
    value: &T,
    place: &mut [MaybeUninit<u8>],
) -> Result<usize, EncodeError> {
    let place = Place { place, written: 0 };
    with_arena(|arena| {
        low::to_bytes_in_with_alloc(value, place, arena.acquire()).map(|place| place.written)
    })
    .map_err(|error: Error| EncodeError::new(error))
}

/// Validates the archive in `bytes`, which must be private memory, and reads the value.
///
/// Copies the archive first if it is not aligned; one with an allocation of its own is.
///
/// # Errors
///
/// [`DecodeError`] if it is not the archive of a value, or is nested too deeply.
pub fn decode<T: RkyvPayload>(bytes: &[u8]) -> Result<T, DecodeError> {
    with_archived::<T, _>(bytes, |archived| low::deserialize(archived))?
        .map_err(|error: Error| DecodeError::new(error))
}

/// Validates the archive in `bytes`, which must be private memory, and calls `read` with it. Copies it first if it is not aligned.
///
/// # Errors
///
/// [`DecodeError`] if it is not the archive of a value, or is nested too deeply.
pub(crate) fn with_archived<T: RkyvPayload, R>(
    bytes: &[u8],
    read: impl FnOnce(&T::Archived) -> R,
) -> Result<R, DecodeError> {
    if is_aligned(bytes) {
        access::<T>(bytes).map(read)
    } else {
        let mut aligned = AlignedVec::<ALIGNMENT>::with_capacity(bytes.len());
        aligned.extend_from_slice(bytes);
        access::<T>(&aligned).map(read)
    }
}

/// Returns `true` if an archive can be read where `bytes` lie.
pub(crate) fn is_aligned(bytes: &[u8]) -> bool {
    bytes.as_ptr().addr().is_multiple_of(ALIGNMENT)
}

/// Validates the archive in `bytes`, which must be aligned, and returns it.
///
/// # Errors
///
/// [`DecodeError`] if it is not the archive of a value, is nested too deeply, or is not aligned.
pub(crate) fn access<T: RkyvPayload>(bytes: &[u8]) -> Result<&T::Archived, DecodeError> {
    let mut validator = Validator::new(
        ArchiveValidator::with_max_depth(bytes, Some(VALIDATOR_DEPTH)),
        (),
    );
    access_with_context::<T::Archived, _, Error>(bytes, &mut validator).map_err(DecodeError::new)
}

/// Output that appends to a vector. Positions in the archive count from where the vector ended before.
pub struct Append<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl Positional for Append<'_> {
    fn pos(&self) -> usize {
        self.out.len() - self.start
    }
}

impl<E> Writer<E> for Append<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), E> {
        self.out.extend_from_slice(bytes);
        Ok(())
    }
}

/// Output into memory that is there. What does not fit is counted and not written, so that one attempt says how much is needed.
pub struct Place<'a> {
    place: &'a mut [MaybeUninit<u8>],
    written: usize,
}

impl Positional for Place<'_> {
    fn pos(&self) -> usize {
        self.written
    }
}

impl<E> Writer<E> for Place<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), E> {
        let end = self.written + bytes.len();
        if let Some(place) = self.place.get_mut(self.written..end) {
            place.write_copy_of_slice(bytes);
        }
        self.written = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
    struct Completion {
        text: String,
        kind: Kind,
        scores: Vec<u128>,
        edits: Option<Vec<(u32, String)>>,
    }

    #[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
    enum Kind {
        Word,
        Snippet { cursor: u16, live: bool },
    }

    fn completion() -> Completion {
        Completion {
            text: "a text that is too long to be stored in place".into(),
            kind: Kind::Snippet {
                cursor: 3,
                live: true,
            },
            scores: vec![1, 2, u128::MAX],
            edits: Some(vec![
                (7, "short".into()),
                (9, "not so very short, this one".into()),
            ]),
        }
    }

    #[test]
    fn archive_in_place_is_the_one_that_is_appended_and_its_size_is_told_without_room() {
        let archive = archive_of(&completion());
        let mut place = [MaybeUninit::new(0xAA_u8); 512];
        for room in [0, 1, archive.len() - 1, archive.len(), 512] {
            let size = encode_into(&completion(), &mut place[..room]).unwrap();
            assert_eq!(size, archive.len(), "{room} bytes of room");
        }
        let mut written = Vec::new();
        written.extend(archive.iter().map(|byte| MaybeUninit::new(*byte)));
        written.resize(512, MaybeUninit::new(0xAA));
        assert_eq!(format!("{place:?}"), format!("{written:?}"));
    }

    fn archive_of<T: RkyvPayload>(value: &T) -> Vec<u8> {
        let mut out = Vec::new();
        encode(value, &mut out).unwrap();
        out
    }

    /// A chain of boxes. Validating it calls itself, so the compiler needs the bounds by hand.
    #[derive(Archive, Serialize, Deserialize)]
    #[rkyv(serialize_bounds(__S: Writer + ::rkyv::ser::Allocator))]
    #[rkyv(deserialize_bounds(__D::Error: ::rkyv::rancor::Source))]
    #[rkyv(bytecheck(bounds(__C: ::rkyv::validation::ArchiveContext, __C::Error: ::rkyv::rancor::Source)))]
    struct Chain {
        #[rkyv(omit_bounds)]
        next: Option<Box<Chain>>,
    }

    fn chain(links: usize) -> Chain {
        (1..links).fold(Chain { next: None }, |next, _| Chain {
            next: Some(Box::new(next)),
        })
    }

    #[test]
    fn value_decodes_to_what_was_encoded_wherever_the_bytes_lie() {
        let archive = archive_of(&completion());
        for offset in 0..=ALIGNMENT {
            let mut moved = vec![0xAA; offset];
            moved.extend_from_slice(&archive);
            assert_eq!(
                decode::<Completion>(&moved[offset..]).unwrap(),
                completion()
            );
        }
    }

    #[test]
    fn value_is_appended_to_what_is_there() {
        let mut out = vec![1, 2, 3];
        encode(&completion(), &mut out).unwrap();
        assert_eq!(out[..3], [1, 2, 3]);
        assert_eq!(out[3..], archive_of(&completion()));
    }

    #[test]
    fn truncated_archives_are_refused_or_read_as_another_value() {
        let archive = archive_of(&completion());
        assert!(decode::<Completion>(&[]).is_err());
        for length in 0..archive.len() {
            assert_ne!(
                decode::<Completion>(&archive[..length]).ok(),
                Some(completion())
            );
        }
    }

    #[test]
    fn wild_offsets_are_refused() {
        let archive = archive_of(&vec![7_u32; 4]);
        let offset_at = archive.len() - 8;
        for offset in [1, -1, 4, -4096, i32::MIN, i32::MAX] {
            let mut wild = archive.clone();
            wild[offset_at..offset_at + 4].copy_from_slice(&i32::to_le_bytes(offset));
            assert!(decode::<Vec<u32>>(&wild).is_err(), "offset {offset}");
        }
    }

    #[test]
    fn wild_lengths_are_refused() {
        let archive = archive_of(&vec![7_u32; 4]);
        let length_at = archive.len() - 4;
        for length in [5, 1 << 16, u32::MAX / 4, u32::MAX] {
            let mut wild = archive.clone();
            wild[length_at..].copy_from_slice(&length.to_le_bytes());
            assert!(decode::<Vec<u32>>(&wild).is_err(), "length {length}");
        }
    }

    #[test]
    fn invalid_text_bool_and_variant_are_refused() {
        assert!(decode::<bool>(&[2]).is_err());
        let mut text = archive_of(&"long enough to be stored apart".to_owned());
        text[0] = 0xFF;
        assert!(decode::<String>(&text).is_err());
        let mut variant = archive_of(&Kind::Word);
        variant[0] = 9;
        assert!(decode::<Kind>(&variant).is_err());
    }

    #[test]
    fn mutated_archives_never_panic() {
        let archive = archive_of(&completion());
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        let mut refused = 0;
        for _ in 0..20_000 {
            let mut mutated = archive.clone();
            for _ in 0..=random.below(4) {
                let place = random.below(mutated.len());
                mutated[place] = random.next() as u8;
            }
            refused += usize::from(decode::<Completion>(&mutated).is_err());
        }
        assert!((1000..20_000).contains(&refused), "{refused} refused");
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut random = Random(1);
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..random.below(200))
                .map(|_| random.next() as u8)
                .collect();
            let _ = decode::<Completion>(&bytes);
            let _ = decode::<Chain>(&bytes);
        }
    }

    #[test]
    fn nesting_is_limited() {
        let archive = |boxes: usize| archive_of(&chain(boxes + 1));
        assert!(decode::<Chain>(&archive(MAX_DEPTH)).is_ok());
        assert!(decode::<Chain>(&archive(MAX_DEPTH + 1)).is_err());
        // Whoever writes it calls itself as often; only the reader must do with little stack.
        let writer = std::thread::Builder::new().stack_size(64 << 20);
        let deep = writer.spawn(move || archive(5000)).unwrap().join().unwrap();
        assert!(decode::<Chain>(&deep).is_err());
    }

    /// Xorshift: the tests need bytes without a pattern, the same ones every time.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        fn below(&mut self, limit: usize) -> usize {
            (self.next() % limit as u64) as usize
        }
    }
}
