//! Regions: what a peer can do with one, and what we accept as one.

mod sys_support;

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use doorbell_shm::memory::{AdoptError, HEADER_BYTES, Layout, adopt_in_two, create_in_two};
use doorbell_shm::ring::{Consumer, Producer};
use doorbell_shm::sys::{
    Mapping, PeerAccess, RegionError, RegionHandle, check_region, create_region, page_bytes,
    seal_size, seal_writable_by_us_only,
};
use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::mm::MprotectFlags;
use sys_support::*;

const BYTES: usize = 3 * 4096;

#[test]
fn child_process() {
    let Some((role, stream)) = role() else { return };
    let region = take_over_region(&stream);
    match role.as_str() {
        "attack S" => attack_region_of_the_peer(&region),
        "write C" => {
            check_region(&region, BYTES, PeerAccess::WriterIsUs).unwrap();
            let mapping = Mapping::map_read_write(&region, BYTES).unwrap();
            word(&mapping, BYTES - 4).store(7, Ordering::Release);
            assert_size_is_fixed(region.as_fd());
        }
        _ => panic!("no role {role}"),
    }
}

fn attack_region_of_the_peer(region: &RegionHandle) {
    check_region(region, BYTES, PeerAccess::WriterIsPeer).unwrap();
    let reader = Mapping::map_read_only(region, BYTES).unwrap();
    assert_eq!(word(&reader, 0).load(Ordering::Relaxed), 42);
    assert_read_only(region.as_fd());

    let path = format!("/proc/self/fd/{}", region.as_fd().as_raw_fd());
    if let Ok(reopened) = File::options().read(true).write(true).open(path) {
        assert_read_only(reopened.as_fd());
    }

    let address = reader.as_ptr().as_ptr().cast();
    // SAFETY: The range is the mapping of `reader`, which holds still and through which nothing is written.
    let protected = unsafe { rustix::mm::mprotect(address, BYTES, MprotectFlags::WRITE) };
    assert_eq!(protected, Err(rustix::io::Errno::ACCESS));
}

fn assert_read_only(fd: BorrowedFd<'_>) {
    let region = RegionHandle::from_handle(fd.try_clone_to_owned().unwrap());
    let mapped = Mapping::map_read_write(&region, BYTES);
    assert_eq!(kind_of(mapped), std::io::ErrorKind::PermissionDenied);
    assert!(rustix::io::pwrite(fd, b"x", 0).is_err());
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    assert!(rustix::fs::fallocate(fd, punch, 0, 4096).is_err());
    assert_size_is_fixed(fd);
}

fn assert_size_is_fixed(fd: BorrowedFd<'_>) {
    for bytes in [0, 4096, BYTES + 4096] {
        assert!(rustix::fs::ftruncate(fd, bytes as u64).is_err());
    }
    assert!(rustix::fs::fcntl_add_seals(fd, SealFlags::WRITE).is_err());
}

#[test]
fn region_that_we_write_cannot_be_changed_by_the_peer() {
    let region = create_region(BYTES).unwrap();
    let writer = Mapping::map_read_write(&region, BYTES).unwrap();
    seal_writable_by_us_only(&region).unwrap();
    word(&writer, 0).store(42, Ordering::Release);
    let peer = Peer::spawn("attack S");
    hand_over(&peer.stream, &region);
    peer.finish();
    word(&writer, 0).store(43, Ordering::Release); // still ours to write
}

#[test]
fn region_that_the_peer_writes_is_read_here() {
    let region = sized_region(BYTES);
    let reader = Mapping::map_read_only(&region, BYTES).unwrap();
    let peer = Peer::spawn("write C");
    hand_over(&peer.stream, &region);
    peer.finish();
    assert_eq!(word(&reader, BYTES - 4).load(Ordering::Relaxed), 7);
}

#[test]
fn new_region_occupies_one_page() {
    let region = create_region(1 << 30).unwrap();
    let stat = rustix::fs::fstat(&region).unwrap();
    assert_eq!(stat.st_size, 1 << 30);
    assert_eq!(stat.st_blocks * 512, page_bytes() as i64);
}

#[test]
fn new_region_carries_no_seal_that_forbids_more() {
    let region = create_region(BYTES).unwrap();
    let seals = rustix::fs::fcntl_get_seals(&region).unwrap();
    assert!(!seals.contains(SealFlags::SEAL));
    seal_size(&region).unwrap();
    assert!(seal_size(&region).is_err());
    assert!(seal_writable_by_us_only(&region).is_err());
}

#[test]
fn size_is_checked_on_receipt() {
    let region = sized_region(BYTES);
    for wrong in [0, BYTES - 4096, BYTES - 1, BYTES + 1, usize::MAX] {
        let error = check_region(&region, wrong, PeerAccess::WriterIsUs).unwrap_err();
        assert!(matches!(error, RegionError::WrongSize { .. }), "{error}");
    }
    check_region(&region, BYTES, PeerAccess::WriterIsUs).unwrap();
}

#[test]
fn seals_are_checked_on_receipt() {
    let each_missing = [
        SealFlags::empty(),
        SealFlags::SHRINK | SealFlags::GROW,
        SealFlags::SHRINK | SealFlags::SEAL,
        SealFlags::GROW | SealFlags::SEAL,
    ];
    for seals in each_missing {
        let region = memfd(seals);
        for write in [PeerAccess::WriterIsPeer, PeerAccess::WriterIsUs] {
            let error = check_region(&region, BYTES, write).unwrap_err();
            assert!(matches!(error, RegionError::Unsealed { .. }), "{error}");
        }
    }
}

#[test]
fn direction_is_checked_on_receipt() {
    let error = check_region(&sized_region(BYTES), BYTES, PeerAccess::WriterIsPeer).unwrap_err();
    assert!(matches!(error, RegionError::Unsealed { .. }), "{error}");
    for against_us in [SealFlags::FUTURE_WRITE, SealFlags::WRITE] {
        let all = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL | against_us;
        let error = check_region(&memfd(all), BYTES, PeerAccess::WriterIsUs).unwrap_err();
        assert!(matches!(error, RegionError::NotWritable { .. }), "{error}");
    }
}

fn memfd(seals: SealFlags) -> RegionHandle {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory = rustix::fs::memfd_create("test", flags).unwrap();
    rustix::fs::ftruncate(&memory, BYTES as u64).unwrap();
    rustix::fs::fcntl_add_seals(&memory, seals).unwrap();
    RegionHandle::from(memory)
}

#[test]
fn file_on_a_mounted_tmpfs_is_refused() {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::open("/dev/shm", flags, Mode::RUSR | Mode::WUSR) else {
        return; // this system has no /dev/shm
    };
    rustix::fs::ftruncate(&file, BYTES as u64).unwrap();
    for write in [PeerAccess::WriterIsPeer, PeerAccess::WriterIsUs] {
        let region = RegionHandle::from(file.try_clone().unwrap());
        assert!(check_region(&region, BYTES, write).is_err());
    }
}

#[test]
fn what_is_no_memory_is_refused() {
    let pipe = OwnedFd::from(std::io::pipe().unwrap().0);
    let null = OwnedFd::from(File::open("/dev/null").unwrap());
    let zero = OwnedFd::from(File::open("/dev/zero").unwrap());
    let program = OwnedFd::from(File::open("/proc/self/exe").unwrap());
    let directory = OwnedFd::from(File::open("/").unwrap());
    for fd in [pipe, null, zero, program, directory] {
        let region = RegionHandle::from(fd);
        for write in [PeerAccess::WriterIsPeer, PeerAccess::WriterIsUs] {
            let error = check_region(&region, 0, write).unwrap_err();
            assert!(matches!(error, RegionError::NotMemory { .. }), "{error}");
        }
    }
}

#[test]
fn mapping_beyond_the_end_is_refused() {
    let region = sized_region(BYTES);
    for mapped in [
        Mapping::map_read_only(&region, BYTES + 1),
        Mapping::map_read_write(&region, usize::MAX),
        Mapping::map_read_only(&region, 0),
    ] {
        assert_eq!(kind_of(mapped), std::io::ErrorKind::InvalidInput);
    }
}

#[test]
fn mapping_is_kept_from_children_and_ends_with_its_owner() {
    let region = sized_region(BYTES);
    let mapping = Mapping::map_read_only(&region, BYTES).unwrap();
    let flags = flags_of_mapping(&region).expect("the region is mapped");
    assert!(flags.split(' ').any(|flag| flag == "dc"), "{flags}"); // do not copy
    drop(mapping);
    assert_eq!(flags_of_mapping(&region), None);
}

/// Returns the kernel's flags of the one mapping of `region`, if there is one.
fn flags_of_mapping(region: &RegionHandle) -> Option<String> {
    let inode = rustix::fs::fstat(region).unwrap().st_ino.to_string();
    let mappings = std::fs::read_to_string("/proc/self/smaps").unwrap();
    mappings
        .lines()
        .skip_while(|line| line.split_whitespace().nth(4) != Some(&inode))
        .find(|line| line.starts_with("VmFlags"))
        .map(str::to_owned)
}

#[test]
fn region_in_two_memories_is_one_range_and_gives_its_second_part_back() {
    let layout = Layout::new(64 << 10, 8).unwrap();
    let made = create_in_two(layout, layout).unwrap();
    let pages = made.pages_handle.unwrap();
    assert_eq!(blocks_of(&pages), 0, "nothing is allocated before its use");
    assert!(
        Mapping::map_read_write(&made.server_handle, layout.region_bytes()).is_err(),
        "the words are sealed"
    );
    let (server, client) = (made.server_handle, made.client_handle);
    let second = pages.try_clone().unwrap();
    let (own, peer) = adopt_in_two(server, second, client, layout, layout).unwrap();
    let mut producer = Producer::new(made.own.clone(), made.peer.clone());
    let mut consumer = Consumer::new(own, peer);
    let (header, body) = (record_header(16_000), vec![7; 16_000]);
    for _ in 0..2 {
        for _ in 0..3 {
            assert!(producer.push(&header, &[&body]).unwrap());
        }
        producer.publish();
        for _ in 0..3 {
            let mut received = Vec::new();
            assert_eq!(consumer.peek(), Ok(Some(header)));
            consumer.copy_body(&mut received);
            assert!(received == body);
            consumer.advance();
        }
        assert!(blocks_of(&pages) > 10);
        assert_eq!(producer.give_back(), Ok(false));
        consumer.release();
        assert_eq!(producer.give_back(), Ok(true));
        assert_eq!(blocks_of(&pages), 0);
    }
}

/// Returns how many pages of a region there are.
fn blocks_of(region: &RegionHandle) -> i64 {
    rustix::fs::fstat(region).unwrap().st_blocks * 512 / page_bytes() as i64
}

fn record_header(body_bytes: u32) -> [u8; HEADER_BYTES] {
    let mut header = [1; HEADER_BYTES];
    header[..4].copy_from_slice(&body_bytes.to_le_bytes());
    header
}

#[test]
fn second_memory_of_another_size_is_refused() {
    let layout = Layout::new(64 << 10, 8).unwrap();
    let made = create_in_two(layout, layout).unwrap();
    let small = sized_region(4096);
    let (server, client) = (made.server_handle, made.client_handle);
    let error = adopt_in_two(server, small, client, layout, layout).unwrap_err();
    assert!(matches!(error, AdoptError::Server { .. }), "{error}");
}
