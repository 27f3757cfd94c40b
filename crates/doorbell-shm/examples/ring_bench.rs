//! What a record costs in the bare ring, over real regions.
//!
//! ```sh
//! cargo run --release -p doorbell-shm --example ring_bench
//! ```
//!
//! First both ends in one thread, where nothing crosses between caches: the cost of our instructions.
//! Then one process that pushes and one that consumes.

use std::hint::black_box;
use std::time::Instant;

use doorbell_shm::memory::{HEADER_BYTES, Layout, OwnRegion, PeerRegion, adopt, crc32c, create};
use doorbell_shm::ring::{Consumer, Producer};
use doorbell_shm::wake::Notifier;

const CAPACITY: u32 = 1 << 20;
const ROUNDS: u32 = 2_000_000;

struct Ends {
    producer: Producer,
    consumer: Consumer,
    notifier: Notifier,
}

fn ends() -> Ends {
    let layout = Layout::new(CAPACITY, 16).expect("a valid layout");
    let server = create(layout, layout).expect("two regions");
    let handles = (server.server_handle, server.client_handle);
    let (own, peer): (OwnRegion, PeerRegion) =
        adopt(handles.0, handles.1, layout, layout).expect("regions we have just made");
    Ends {
        producer: Producer::new(server.own, server.peer.clone()),
        notifier: Notifier::new(server.peer),
        consumer: Consumer::new(own, peer),
    }
}

fn header(length: usize) -> [u8; HEADER_BYTES] {
    let mut header = [1; HEADER_BYTES];
    header[..4].copy_from_slice(&u32::try_from(length).expect("a small body").to_le_bytes());
    header
}

fn nanoseconds(rounds: u32, mut round: impl FnMut()) -> f64 {
    let mut least = f64::INFINITY;
    for _ in 0..10 {
        let start = Instant::now();
        (0..rounds / 10).for_each(|_| round());
        let each = start.elapsed().as_secs_f64() * 1e9 / f64::from(rounds / 10);
        least = least.min(each);
    }
    least
}

/// One record at a time, published and released each time.
fn one_by_one(body_bytes: usize) -> f64 {
    let mut ends = ends();
    let (body, header) = (vec![7; body_bytes], header(body_bytes));
    let mut out = Vec::with_capacity(2 * body_bytes + 64);
    nanoseconds(ROUNDS, || {
        assert!(
            ends.producer
                .push(black_box(&header), &[black_box(&body)])
                .expect("our peer")
        );
        ends.producer.publish();
        take(&mut ends.consumer, &mut out);
        ends.consumer.release();
    })
}

/// Returns the cost of sending and that of receiving, in batches of 64 records.
fn batched(body_bytes: usize) -> (f64, f64) {
    const BATCH: u32 = 64;
    let mut ends = ends();
    let (body, header) = (vec![7; body_bytes], header(body_bytes));
    let mut out = Vec::with_capacity(2 * body_bytes + 64);
    let (mut send, mut receive) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..ROUNDS / BATCH {
        let start = Instant::now();
        for _ in 0..BATCH {
            assert!(
                ends.producer
                    .push(black_box(&header), &[black_box(&body)])
                    .expect("our peer")
            );
            ends.producer.publish();
        }
        let middle = Instant::now();
        for _ in 0..BATCH {
            take(&mut ends.consumer, &mut out);
        }
        ends.consumer.release();
        let each = |time: std::time::Duration| time.as_secs_f64() * 1e9 / f64::from(BATCH);
        send = send.min(each(middle - start));
        receive = receive.min(each(middle.elapsed()));
    }
    (send, receive)
}

#[inline]
fn take(consumer: &mut Consumer, out: &mut Vec<u8>) {
    let header = consumer.peek().expect("our peer").expect("a record");
    let [id, rest] = [8, 16].map(|at| u64::from_le_bytes(*header[at..].first_chunk().expect("24")));
    black_box(id ^ rest ^ u64::from(header[5]));
    out.clear();
    consumer.copy_body(out);
    black_box(&out);
    consumer.advance();
}

fn fence() -> f64 {
    let mut ends = ends();
    nanoseconds(ROUNDS, || assert!(ends.notifier.after_publish().is_none()))
}

fn crc(bytes: usize) -> f64 {
    let data = vec![3; bytes];
    nanoseconds(ROUNDS / 10, || {
        black_box(crc32c(0, black_box(&data)));
    })
}

fn main() {
    println!("one thread, ns per record:");
    println!(
        "{:>8}{:>12}{:>10}{:>10}",
        "body", "one by one", "send", "receive"
    );
    for body_bytes in [0, 8, 64, 256, 1024, 4096, 65_536] {
        let (send, receive) = if body_bytes <= 4096 {
            batched(body_bytes)
        } else {
            (f64::NAN, f64::NAN)
        };
        println!(
            "{body_bytes:>8}{:>12.1}{send:>10.1}{receive:>10.1}",
            one_by_one(body_bytes)
        );
    }
    println!("after_publish, nobody asleep: {:.1} ns", fence());
    for bytes in [20, 64, 100, 200, 1024, 4096, 65_536] {
        println!("crc32c of {bytes:>6} bytes: {:>8.1} ns", crc(bytes));
    }
}
