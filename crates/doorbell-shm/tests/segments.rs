//! Segments for loans, between two processes and against a peer that sends something else.

mod sys_support;

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use doorbell_shm::memory::{
    Buffer, DroppedBlock, OwnBlock, OwnSegment, SharedBytes, adopt_own_segment, adopt_peer_segment,
    create_own_segment, create_peer_segment,
};
use doorbell_shm::stall::Subject;
use doorbell_shm::sys::{Mapping, RegionError, create_region, seal_writable_by_us_only};
use sys_support::*;

const BYTES: u32 = 4 * 4096;

#[test]
fn child_process() {
    let Some((role, stream)) = role() else { return };
    let handle = take_over_region(&stream);
    match role.as_str() {
        "read" => {
            let segment = adopt_peer_segment(&handle, BYTES).unwrap();
            assert!(Mapping::map_read_write(&handle, BYTES as usize).is_err());
            let block = segment.block(64, 1000).unwrap();
            drop(segment); // the block keeps it
            assert_eq!(SharedBytes::Peer(block).copy_to_vec(), pattern(1000));
        }
        "write" => {
            let mut segment = adopt_own_segment(&handle, BYTES).unwrap();
            let first = segment.allocate(64).unwrap();
            let block = filled(&mut segment, 1000);
            assert_eq!((first.offset(), block.offset()), (0, 64));
        }
        role => panic!("no role {role}"),
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| (index * 7 + length) as u8)
        .collect()
}

fn filled(segment: &mut OwnSegment, length: usize) -> OwnBlock {
    let mut block = segment.allocate(length).unwrap();
    block.as_uninit().write_copy_of_slice(&pattern(length));
    block
}

#[test]
fn peer_reads_what_was_written_and_cannot_write_itself() {
    let (mut segment, handle) = create_own_segment(BYTES).unwrap();
    let _first = segment.allocate(1).unwrap();
    let block = filled(&mut segment, 1000);
    segment.lend(&block.claim().unwrap());
    let peer = Peer::spawn("read");
    hand_over(&peer.stream, &handle);
    peer.finish();
    assert!(segment.take_back(block.offset()));
}

#[test]
fn segment_made_for_the_peer_is_read_here() {
    let (segment, handle) = create_peer_segment(BYTES, Subject::default()).unwrap();
    let peer = Peer::spawn("write");
    hand_over(&peer.stream, &handle);
    peer.finish();
    let bytes = SharedBytes::Peer(segment.block(64, 1000).unwrap());
    assert_eq!(bytes.copy_to_vec(), pattern(1000));
}

#[test]
fn any_part_is_copied_and_only_what_is_inside() {
    let (mut segment, handle) = create_own_segment(BYTES).unwrap();
    let reader = adopt_peer_segment(&handle, BYTES).unwrap();
    for length in [0, 1, 7, 8, 63, 64, 65, 1000, 4097] {
        let block = filled(&mut segment, length);
        let own = reader
            .block(block.offset(), u32::try_from(length).unwrap())
            .unwrap();
        let expected = pattern(length);
        for bytes in [SharedBytes::Peer(own), SharedBytes::Own(block)] {
            assert_eq!((bytes.len(), bytes.is_empty()), (length, length == 0));
            assert_eq!(bytes.copy_to_vec(), expected);
            // SAFETY: all of it has been written, and nobody writes it now.
            assert_eq!(unsafe { bytes.as_slice() }, expected);
            for at in (0..=length.min(40)).chain([length / 2, length]) {
                for count in [0, 1, 5, 8, 9, 30, length - at] {
                    let count = count.min(length - at);
                    let mut out = vec![0xEE; count];
                    bytes.copy_to_slice(at, &mut out);
                    assert_eq!(out, expected[at..at + count], "{count} at {at} of {length}");
                }
            }
        }
    }
    for (offset, length) in [
        (1, 1),
        (32, 1),
        (BYTES, 0),
        (BYTES - 64, 65),
        (64, u32::MAX),
    ] {
        assert!(
            reader.block(offset, length).is_none(),
            "{length} at {offset}"
        );
    }
    assert!(reader.block(BYTES - 64, 64).is_some());
}

/// Returns where the blocks of a segment arrive that are dropped unlent.
fn hear(segment: &OwnSegment) -> mpsc::Receiver<DroppedBlock> {
    let (tell, dropped) = mpsc::channel();
    segment.on_drop(Arc::new(move |block| tell.send(block).unwrap()));
    dropped
}

#[test]
fn block_that_was_dropped_is_freed_by_its_own_segment_alone() {
    let [mut segment, mut other] = [(); 2].map(|()| create_own_segment(4096).unwrap().0);
    let dropped = hear(&segment);
    let of_other = other.allocate(4096).unwrap();
    drop(segment.allocate(4096).unwrap());
    assert!(!other.free(dropped.try_recv().unwrap()));
    assert!(
        other.allocate(1).is_none(),
        "the block of the other is taken"
    );
    drop(of_other);
}

#[test]
fn block_is_copied_until_it_is_lent_and_not_after() {
    let (mut segment, _) = create_own_segment(4096).unwrap();
    let bytes = SharedBytes::Own(filled(&mut segment, 1000));
    let SharedBytes::Own(block) = &bytes else {
        unreachable!("just made");
    };
    let claim = block.claim().unwrap();
    let mut out = vec![1];
    assert!(
        bytes.try_append_to(&mut out),
        "one that is claimed is copied"
    );
    assert_eq!(out[1..], pattern(1000));
    segment.lend(&claim);
    assert!(!bytes.try_append_to(&mut out));
    assert_eq!(out.len(), 1001);
}

#[test]
fn block_is_free_again_when_it_is_dropped_or_when_the_peer_gives_it_back() {
    let (mut segment, _) = create_own_segment(4096).unwrap();
    let dropped = hear(&segment);
    let whole = segment.allocate(4096).unwrap();
    assert!(segment.allocate(0).is_none() && !segment.take_back(0));
    drop(whole);
    assert!(segment.is_used() && segment.free(dropped.try_recv().unwrap()));
    assert!(!segment.is_used());
    let whole = segment.allocate(4096).unwrap();
    segment.lend(&whole.claim().unwrap());
    drop(whole);
    assert!(segment.is_used() && segment.allocate(1).is_none());
    assert!(segment.take_back(0) && !segment.take_back(0));
    assert!(segment.allocate(4096).is_some());
}

#[test]
fn who_has_a_segment_hears_of_a_block_that_was_dropped_when_that_keeps_no_memory_and_not_of_one_that_was_lent()
 {
    struct Rent(Arc<AtomicUsize>);

    impl Drop for Rent {
        fn drop(&mut self) {
            self.0.store(0, Ordering::Relaxed);
        }
    }

    let [rent, heard] = [1, usize::MAX].map(|value| Arc::new(AtomicUsize::new(value)));
    let (mut segment, _) = create_own_segment(4096).unwrap();
    segment.keep(Box::new(Rent(Arc::clone(&rent))));
    segment.on_drop(Arc::new({
        let (rent, heard) = (Arc::clone(&rent), Arc::clone(&heard));
        move |block| {
            let paid = rent.load(Ordering::Relaxed);
            heard.store(100 * paid + block.offset() as usize, Ordering::Relaxed);
        }
    }));
    let [lent, unlent, last] = [(); 3].map(|()| segment.allocate(64).unwrap());
    segment.lend(&lent.claim().unwrap());
    thread::spawn(|| drop(unlent)).join().unwrap();
    assert_eq!(heard.load(Ordering::Relaxed), 100 + 64);
    drop(segment);
    drop(last);
    assert_eq!(
        heard.load(Ordering::Relaxed),
        128,
        "one that is lent keeps no memory"
    );
    drop(lent);
    assert_eq!(heard.load(Ordering::Relaxed), 128, "it is not free");
}

#[test]
fn block_is_claimed_by_one_at_a_time_and_not_after_it_was_lent() {
    let (mut segment, _) = create_own_segment(4096).unwrap();
    let block = segment.allocate(10).unwrap();
    let claim = block.claim().unwrap();
    assert!(block.claim().is_none());
    drop(claim);
    let claim = block.claim().unwrap();
    segment.lend(&claim);
    drop(claim);
    assert!(block.claim().is_none());
}

#[test]
#[should_panic(expected = "of another segment")]
fn block_is_not_lent_by_another_segment() {
    let [(mut segment, _), (mut other, _)] = [(); 2].map(|()| create_own_segment(4096).unwrap());
    let block = segment.allocate(10).unwrap();
    other.lend(&block.claim().unwrap());
}

#[test]
#[should_panic(expected = "is written")]
fn block_that_is_lent_cannot_be_written() {
    let (mut segment, _) = create_own_segment(4096).unwrap();
    let mut block = segment.allocate(10).unwrap();
    segment.lend(&block.claim().unwrap());
    block.as_uninit();
}

#[test]
#[should_panic(expected = "has been sent is read")]
fn block_that_is_lent_cannot_be_read_by_its_writer() {
    let (mut segment, _) = create_own_segment(4096).unwrap();
    let block = segment.allocate(10).unwrap();
    segment.lend(&block.claim().unwrap());
    SharedBytes::Own(block).copy_to_vec();
}

#[test]
fn buffer_is_written_and_read_like_a_block() {
    for length in [0, 1, 8, 9, 1000] {
        let mut bytes = SharedBytes::Buffer(Buffer::new(length));
        assert_eq!(bytes.copy_to_vec(), vec![0; length]);
        let expected = pattern(length);
        let written = bytes.as_uninit().unwrap();
        written.write_copy_of_slice(&expected);
        assert_eq!(bytes.copy_to_vec(), expected);
    }
    assert!(SharedBytes::Private(vec![1]).as_uninit().is_none());
}

#[test]
fn segment_that_is_not_what_was_announced_is_refused() {
    let unsealed = create_region(BYTES as usize).unwrap();
    let error = adopt_peer_segment(&unsealed, BYTES).unwrap_err();
    assert!(matches!(error, RegionError::Unsealed { .. }), "{error}");
    let sealed = create_region(BYTES as usize).unwrap();
    seal_writable_by_us_only(&sealed).unwrap();
    let error = adopt_peer_segment(&sealed, BYTES + 4096).unwrap_err();
    assert!(matches!(error, RegionError::WrongSize { .. }), "{error}");
    let error = adopt_own_segment(&sealed, BYTES).unwrap_err();
    assert!(matches!(error, RegionError::NotWritable { .. }), "{error}");
    assert!(adopt_peer_segment(&sealed, BYTES).is_ok());
}

#[test]
fn blocks_and_buffers_begin_at_multiples_of_64_and_can_be_cut() {
    let (mut segment, _) = create_own_segment(BYTES).unwrap();
    let dropped = hear(&segment);
    for length in [0, 1, 63, 64, 65, 1000] {
        let block = SharedBytes::Own(segment.allocate(length).unwrap());
        for mut bytes in [block, SharedBytes::Buffer(Buffer::new(length))] {
            let place = bytes.as_uninit().unwrap();
            assert!(place.as_ptr().addr().is_multiple_of(64), "{length} bytes");
            place.fill(MaybeUninit::new(7));
            for kept in [length + 1, length, length / 2] {
                bytes.truncate(kept);
                assert_eq!(bytes.copy_to_vec(), vec![7; kept.min(length)]);
            }
        }
    }
    for block in dropped.try_iter() {
        assert!(segment.free(block));
    }
    assert!(!segment.is_used(), "all of a block that was cut is free");
}
