//! Items that have arrived and wait for their reader.
//!
//! Small ones are gathered, whether they came in one frame or not, so that an item costs neither an allocation nor a place in a
//! queue. The reader takes all that there is in one go, and leaves its empty inbox, with its memory, for what comes next.

use std::{collections::VecDeque, convert::Infallible, ops::Range};

use doorbell_proto::{
    connection::Payload as Arrived,
    frame::{PACKED_LENGTH_BYTES, Packed, pack, packed_at},
};

use super::Held;
use crate::{
    error::CallError,
    message::{Incoming, Payload},
};

/// The items of one stream and direction, in order.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    entries: VecDeque<Entry>,
    /// Where the next item begins in the first entry.
    at: usize,
    /// Memory of an entry that has been read.
    spare: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    bytes: Bytes,
    /// What the sender has paid for them.
    cost_bytes: u64,
}

#[derive(Debug)]
enum Bytes {
    /// Small items, each behind its length.
    Gathered(Vec<u8>),
    /// One item.
    Whole(Vec<u8>),
    /// One item, where the peer wrote it.
    Loaned(Held),
}

/// Memory of an entry whose last item is being read. It is kept for another one.
struct Read<'a> {
    bytes: Vec<u8>,
    spare: &'a mut Vec<u8>,
}

impl Drop for Read<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.spare.capacity() == 0 {
            self.bytes.clear();
            std::mem::swap(&mut self.bytes, self.spare);
        }
    }
}

impl Inbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns `true` if it holds memory.
    pub(super) fn has_memory(&self) -> bool {
        self.entries.capacity() > 0
    }

    /// Adds an item.
    pub(super) fn push(&mut self, payload: Arrived<'_>, cost_bytes: u64) {
        match payload {
            Arrived::Borrowed(item) if item.len() <= SMALL_BYTES => {
                let gathered = self.gather(item.len() + PACKED_LENGTH_BYTES, cost_bytes);
                let Ok(()) = pack(gathered, |out| {
                    out.extend_from_slice(item);
                    Ok::<_, Infallible>(())
                });
            }
            payload => self.entries.push_back(Entry {
                bytes: Bytes::Whole(payload.into_vec()),
                cost_bytes,
            }),
        }
    }

    /// Adds an item that lies where the peer wrote it.
    pub(super) fn push_loan(&mut self, loan: Held, cost_bytes: u64) {
        self.entries.push_back(Entry {
            bytes: Bytes::Loaned(loan),
            cost_bytes,
        });
    }

    /// Adds the items of a packed frame.
    pub(super) fn push_packed(&mut self, items: Packed<'_>, cost_bytes: u64) {
        let items = items.as_bytes();
        self.gather(items.len(), cost_bytes)
            .extend_from_slice(items);
    }

    /// Returns where so many bytes more can be gathered.
    fn gather(&mut self, more_bytes: usize, cost_bytes: u64) -> &mut Vec<u8> {
        let has_room = matches!(
            self.entries.back(),
            Some(Entry { bytes: Bytes::Gathered(bytes), .. }) if bytes.len() + more_bytes <= GATHERED_BYTES
        );
        if !has_room {
            self.entries.push_back(Entry {
                bytes: Bytes::Gathered(std::mem::take(&mut self.spare)),
                cost_bytes: 0,
            });
        }
        match self.entries.back_mut() {
            Some(Entry {
                bytes: Bytes::Gathered(bytes),
                cost_bytes: paid,
            }) => {
                *paid += cost_bytes;
                bytes
            }
            _ => unreachable!("the last entry gathers"),
        }
    }

    /// Takes the next item, if it is a small one behind which there are others of its entry: nothing is owed for it yet.
    ///
    /// So it can be decoded last of all, and straight to where it is wanted. An item that is put away meanwhile is moved in pieces that overlap
    /// those in which it was written; for one of 64 bytes to wait for these costs more than everything else.
    #[inline(always)]
    pub(crate) fn step(&mut self) -> Option<&[u8]> {
        let Some(Entry {
            bytes: Bytes::Gathered(bytes),
            ..
        }) = self.entries.front()
        else {
            return None;
        };
        let (item, next) = packed_at(bytes, self.at).expect("only whole items are gathered");
        if next == bytes.len() {
            return None;
        }
        self.at = next;
        Some(item)
    }

    /// Takes the next item, and adds what is owed to the sender with it: what an entry has cost, with the last item of it.
    /// Both also if decoding the item panics: the next ones are not spoilt by it.
    pub(crate) fn pop<T: Payload>(&mut self, owed_bytes: &mut u64) -> Option<Result<T, CallError>> {
        let entry = self.entries.front()?;
        let Bytes::Gathered(bytes) = &entry.bytes else {
            return self.pop_whole(owed_bytes);
        };
        let (item, next) = packed_at(bytes, self.at).expect("only whole items are gathered");
        if next == bytes.len() {
            let item = next - item.len()..next;
            return self.pop_last(item, owed_bytes);
        }
        self.at = next;
        Some(T::decode(Incoming::Borrowed(item)).map_err(CallError::Decode))
    }

    /// Takes the last item of the first entry, which lies there in its bytes, and the entry with it.
    #[inline]
    fn pop_last<T: Payload>(
        &mut self,
        item: Range<usize>,
        owed_bytes: &mut u64,
    ) -> Option<Result<T, CallError>> {
        self.at = 0;
        let Entry { bytes, cost_bytes } = self.entries.pop_front()?;
        *owed_bytes += cost_bytes;
        let Bytes::Gathered(bytes) = bytes else {
            return None;
        };
        let read = Read {
            bytes,
            spare: &mut self.spare,
        };
        Some(T::decode(Incoming::Borrowed(&read.bytes[item])).map_err(CallError::Decode))
    }

    #[cold]
    fn pop_whole<T: Payload>(&mut self, owed_bytes: &mut u64) -> Option<Result<T, CallError>> {
        let Entry { bytes, cost_bytes } = self.entries.pop_front()?;
        *owed_bytes += cost_bytes;
        let item = match bytes {
            Bytes::Gathered(bytes) | Bytes::Whole(bytes) => T::decode(Incoming::Owned(bytes)),
            Bytes::Loaned(loan) => T::decode_loaned(loan.into()),
        };
        Some(item.map_err(CallError::Decode))
    }

    /// Forgets everything. Returns what it has cost.
    pub(crate) fn clear(&mut self) -> u64 {
        self.at = 0;
        self.entries.drain(..).map(|entry| entry.cost_bytes).sum()
    }
}

/// Largest item that is gathered: beyond it an allocation costs less than copying once more.
const SMALL_BYTES: usize = 1024;

/// Largest entry: what is kept for an idle stream, and what is owed to the sender late.
const GATHERED_BYTES: usize = 8192;

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::{DecodeError, EncodeError, Raw};

    fn popped(inbox: &mut Inbox) -> Option<(Vec<u8>, u64)> {
        let mut owed_bytes = 0;
        let item = inbox.pop::<Raw>(&mut owed_bytes)?;
        Some((item.unwrap().0.to_vec(), owed_bytes))
    }

    #[test]
    fn items_come_out_in_order_and_all_cost_is_owed_once() {
        let mut inbox = Inbox::default();
        let (mut expected, mut paid) = (Vec::new(), 0);
        for number in 0..1000_usize {
            let item = vec![number as u8; number * 7 % 1500];
            let cost_bytes = 24 + item.len() as u64;
            paid += cost_bytes;
            if number % 5 == 0 {
                inbox.push(Arrived::Assembled(item.clone()), cost_bytes);
            } else {
                inbox.push(Arrived::Borrowed(&item), cost_bytes);
            }
            expected.push(item);
        }
        let mut owed = 0;
        for item in expected {
            let (found, cost_bytes) = popped(&mut inbox).unwrap();
            assert_eq!(found, item);
            owed += cost_bytes;
        }
        assert_eq!((owed, inbox.is_empty()), (paid, true));
        assert!(popped(&mut inbox).is_none());
    }

    #[test]
    fn items_of_a_packed_frame_join_those_before() {
        let header = doorbell_proto::FrameHeader::new(doorbell_proto::FrameKind::Data, 1, 0);
        let body = [1, 0, 0, 0, 7, 0, 0, 0, 0];
        let mut inbox = Inbox::default();
        inbox.push(Arrived::Borrowed(&[6]), 25);
        inbox.push_packed(Packed::parse(&header, &body).unwrap(), 33);
        assert_eq!(popped(&mut inbox), Some((vec![6], 0)));
        assert_eq!(popped(&mut inbox), Some((vec![7], 0)));
        assert_eq!(popped(&mut inbox), Some((vec![], 58)));
    }

    /// Its decoding panics.
    #[derive(Debug)]
    struct Unreadable;

    impl Payload for Unreadable {
        fn encode(&self, _: &mut Vec<u8>) -> Result<(), EncodeError> {
            Ok(())
        }

        fn decode(_: Incoming<'_>) -> Result<Self, DecodeError> {
            panic!("a decoder of the tests panics, as it should")
        }
    }

    #[test]
    fn item_whose_decoding_panics_is_taken_and_its_cost_owed() {
        let mut inbox = Inbox::default();
        for numbers in [&[1, 2][..], &[3]] {
            for &number in numbers {
                inbox.push(Arrived::Borrowed(&[number]), 25);
            }
            inbox.push(Arrived::Assembled(vec![9]), 30);
        }
        assert_eq!(popped(&mut inbox), Some((vec![1], 0)));
        let mut owed_bytes = 0;
        for owed in [50, 80, 105] {
            let pop = AssertUnwindSafe(|| inbox.pop::<Unreadable>(&mut owed_bytes));
            assert!(catch_unwind(pop).is_err());
            assert_eq!(owed_bytes, owed);
        }
        assert_eq!(popped(&mut inbox), Some((vec![9], 30)));
        assert!(popped(&mut inbox).is_none());
    }

    #[test]
    fn memory_of_what_was_read_is_used_again() {
        let mut inbox = Inbox::default();
        inbox.push(Arrived::Borrowed(&[1; 500]), 1);
        let place = match &inbox.entries[0].bytes {
            Bytes::Gathered(bytes) | Bytes::Whole(bytes) => bytes.as_ptr(),
            Bytes::Loaned(_) => unreachable!("it was pushed as bytes"),
        };
        popped(&mut inbox).unwrap();
        inbox.push(Arrived::Borrowed(&[2; 500]), 1);
        assert!(
            matches!(&inbox.entries[0].bytes, Bytes::Gathered(bytes) if bytes.as_ptr() == place)
        );
    }
}
