//! What a record costs in the bare ring, over real regions.
//!
//! ```sh
//! cargo run --release -p doorbell-shm --example ring_bench
//! ```
//!
//! First both ends in one thread, where nothing crosses between caches: the cost of our instructions.
//! Then one process that pushes and one that consumes, on CPUs of their own, both
//! spinning. All figures are the least of many windows, so that a busy machine does not drown them.

use std::cell::Cell;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use doorbell_shm::memory::{HEADER_BYTES, Layout, OwnRegion, PeerRegion, adopt, crc32c, create};
use doorbell_shm::ring::{Consumer, Producer};
use doorbell_shm::sys::{ControlStream, Listener, RegionHandle, cpu_count, pin_current_thread};
use doorbell_shm::wake::Notifier;

const CAPACITY: u32 = 1 << 20;
const ROUNDS: u32 = 2_000_000;
const WINDOWS: u32 = 200;

struct Ends {
    producer: Producer,
    consumer: Consumer,
    notifier: Notifier,
}

fn ends() -> Ends {
    let layout = layout();
    let server = create(layout, layout).expect("two regions");
    let handles = (server.server_handle, server.client_handle);
    let (own, peer): (OwnRegion, PeerRegion) =
        adopt(handles.0, handles.1, layout, layout).expect("regions we have just made");
    Ends {
        producer: Producer::new(server.own.clone(), server.peer.clone()),
        notifier: Notifier::new(server.own, server.peer),
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

/// Nanoseconds per record, seen by the consumer, while another process pushes as fast as it can.
fn two_processes(body_bytes: usize) -> f64 {
    let path = std::env::temp_dir().join(format!("ring_bench.{}", std::process::id()));
    let listener = Listener::bind(&path).expect("a socket in the temporary directory");
    let program = std::env::current_exe().expect("our own program");
    let arguments = [path.as_os_str(), body_bytes.to_string().as_ref()].map(ToOwned::to_owned);
    let mut child = Command::new(program)
        .args(arguments)
        .spawn()
        .expect("a second process");
    let stream = loop {
        if let Some(stream) = listener.accept().expect("a connection") {
            break stream;
        }
    };
    let layout = layout();
    let server = create(layout, layout).expect("two regions");
    let handles = [
        server.server_handle.as_handle(),
        server.client_handle.as_handle(),
    ];
    stream
        .send_with_handles(b"r", &handles)
        .expect("room in the socket");
    let mut consumer = Consumer::new(server.own, server.peer);
    pin(0);
    let time = consume(&mut consumer, body_bytes);
    assert!(child.wait().expect("our child").success());
    time
}

/// Returns the least of many windows: others may want these CPUs too.
fn consume(consumer: &mut Consumer, body_bytes: usize) -> f64 {
    let mut out = Vec::with_capacity(2 * body_bytes + 64);
    let mut least = f64::INFINITY;
    for _ in 0..WINDOWS {
        let start = Instant::now();
        let mut count = 0;
        while count < ROUNDS / WINDOWS {
            match consumer.peek().expect("our peer") {
                Some(_) => {
                    take(consumer, &mut out);
                    count += 1;
                    if count % 32 == 0 {
                        consumer.release();
                    }
                }
                None => {
                    consumer.release();
                    pause();
                }
            }
        }
        let each = start.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS / WINDOWS);
        least = least.min(each);
    }
    least
}

/// Spins; now and then lets somebody else run.
fn pause() {
    thread_local!(static PAUSES: Cell<u32> = const { Cell::new(0) });
    let pauses = PAUSES.get().wrapping_add(1);
    PAUSES.set(pauses);
    if pauses.is_multiple_of(1024) {
        std::thread::yield_now();
    }
    std::hint::spin_loop();
}

/// The second process: takes the regions over and pushes.
fn produce(path: &Path, body_bytes: usize) {
    let stream = ControlStream::connect(path, None).expect("the first process");
    stream.wait_readable(None).expect("a message");
    let (_, handles) = stream
        .receive_with_handles(&mut [0], 2)
        .expect("two handles");
    let [server, client] = <[_; 2]>::try_from(handles)
        .expect("two handles")
        .map(RegionHandle::from_handle);
    let (own, peer) = adopt(server, client, layout(), layout()).expect("regions as agreed");
    let mut producer = Producer::new(own, peer);
    let (body, header) = (vec![7; body_bytes], header(body_bytes));
    pin(1);
    for _ in 0..ROUNDS {
        while !producer
            .push(black_box(&header), &[black_box(&body)])
            .expect("our peer")
        {
            pause();
        }
        producer.publish();
    }
}

fn pin(cpu: usize) {
    if cpu < cpu_count() {
        pin_current_thread(cpu).expect("a CPU that exists");
    }
}

fn layout() -> Layout {
    Layout::new(CAPACITY, 16).expect("a valid layout")
}

fn main() {
    if let [_, path, body_bytes] = &std::env::args().collect::<Vec<_>>()[..] {
        return produce(Path::new(path), body_bytes.parse().expect("a number"));
    }
    for body_bytes in [8, 64, 256, 1024, 4096] {
        let time = two_processes(body_bytes);
        println!("two processes, {body_bytes:>5} bytes: {time:>7.1} ns per record");
    }
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
