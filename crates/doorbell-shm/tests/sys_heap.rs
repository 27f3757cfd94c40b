//! What the allocator keeps of freed memory, in a process of its own.

use std::{fs, hint::black_box, thread};

use doorbell_shm::sys::{heap_bytes_in_use, trim_heap};

/// Memory that only this process has, in KiB.
fn private_kib() -> u64 {
    let smaps = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = smaps
        .lines()
        .find_map(|line| line.strip_prefix("Private_Dirty:"));
    let number = line.unwrap().trim().trim_end_matches(" kB");
    number.parse().unwrap()
}

/// The first block is mapped for itself, and teaches the allocator to take the second one from the heap, at its end.
#[test]
fn end_of_the_heap_of_a_thread_is_given_back() {
    if heap_bytes_in_use().is_none() {
        return; // another allocator, or another library
    }
    let spared = thread::spawn(|| {
        drop(black_box(vec![1_u8; 1 << 20]));
        trim_heap();
        let before = private_kib();
        drop(black_box(vec![1_u8; 1 << 20]));
        let kept = private_kib().saturating_sub(before);
        assert!(kept > 900, "the allocator keeps {kept} KiB of a mebibyte");
        trim_heap();
        private_kib().saturating_sub(before)
    });
    let kept = spared.join().unwrap();
    assert!(kept < 300, "{kept} KiB are still there");
}
