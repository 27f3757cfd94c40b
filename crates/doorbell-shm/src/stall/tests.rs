use super::*;

const IT: Subject = Subject(1);

fn sleep() {
    std::thread::sleep(Duration::from_millis(1));
}

/// Touches memory that was never touched before: so large a block no allocator keeps.
fn fault() {
    let mut block = vec![0_u8; 64 << 20];
    block[32 << 20] = 1;
    std::hint::black_box(block);
}

fn both() {
    sleep();
    fault();
}

fn stalls(work: impl FnOnce()) -> bool {
    measure(IT, work);
    take().is_some()
}

#[test]
fn sleep_and_a_fault_are_a_stall() {
    watch(true);
    assert!(!stalls(|| ()));
    assert!(stalls(both));
    assert!(!stalls(|| ()));
    assert_eq!(measure(IT, || 7), 7);
    watch(false);
}

#[test]
fn neither_is_one_alone() {
    watch(true);
    let is_none = |work: fn()| (0..100).any(|_| !stalls(work)); // other tests may take the lock of a fault
    assert!(is_none(sleep));
    assert!(is_none(fault));
    watch(false);
}

#[test]
fn what_is_left_out_may_stall() {
    watch(true);
    assert!(!stalls(|| leave_out(both)));
    let before = || {
        both();
        leave_out(sleep);
    };
    assert!(stalls(before));
    let after = || {
        leave_out(sleep);
        both();
    };
    assert!(stalls(after));
    watch(false);
}

#[test]
fn what_counts_does_so_in_what_is_left_out() {
    watch(true);
    assert!(stalls(|| leave_out(|| count(IT, both))));
    let around = || {
        both();
        count(IT, || ());
        both();
    };
    assert!(!stalls(|| leave_out(around)));
    let of_another = || count(Subject(2), both);
    assert!(!stalls(|| leave_out(of_another)));
    count(IT, both);
    assert_eq!(take(), None, "nothing was measured");
    watch(false);
}

#[test]
fn only_threads_that_are_watched_are_measured() {
    watch(true);
    watch(false);
    leave_out(both);
    count(IT, both);
    assert!(!is_watched());
    assert!(!std::thread::spawn(is_watched).join().unwrap());
}
