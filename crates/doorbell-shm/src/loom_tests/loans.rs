//! Blocks of a segment on their way to the peer and back. The rings and the map of what is free are the real ones; what the crate above does
//! around them is written down here once more, and each step names the function that it follows.

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::model;
use super::side::{FULL, sides};
use crate::memory::Blocks;
use crate::sync::kept;
use crate::wake::SleepOn;

/// Bytes of a block; unordered accesses fail the model.
struct Block(UnsafeCell<u8>);

// SAFETY: loom's cell reports every unordered pair of accesses.
unsafe impl Sync for Block {}
// SAFETY: as above.
unsafe impl Send for Block {}

impl Block {
    fn new() -> Arc<Self> {
        Arc::new(Self(UnsafeCell::new(0)))
    }

    fn write(&self, value: u8) {
        // SAFETY: loom has checked that nobody else has access.
        self.0.with_mut(|byte| unsafe { *byte = value });
    }

    fn read(&self) -> u8 {
        // SAFETY: loom has checked that nobody writes.
        self.0.with(|byte| unsafe { *byte })
    }
}

const BYTES: u32 = 64;

/// A block is filled, lent, read, given back and filled again. What orders that are the two rings: edge `filled`, there and back.
#[test]
fn loom_block_is_read_before_it_is_written_again() {
    model(|| {
        let (mut writer, mut reader) = sides(SleepOn::Futex);
        let block = Block::new();
        let peer = thread::spawn({
            let block = Arc::clone(&block);
            move || {
                while reader.try_receive().is_none() {
                    thread::yield_now();
                }
                let (early, late) = (!kept("return-after-read"), kept("return-after-read"));
                assert!(!early || reader.try_send(2)); // `Held` is dropped by whoever has read
                assert_eq!(block.read(), 1);
                assert!(!late || reader.try_send(2));
            }
        });
        let mut blocks = Blocks::new(BYTES);
        let offset = blocks.take(BYTES).unwrap();
        block.write(1);
        blocks.lend(offset);
        assert!(writer.try_send(1));
        while writer.try_receive().is_none() {
            thread::yield_now();
        }
        assert!(blocks.give_lent(offset));
        assert_eq!(blocks.take(BYTES), Some(offset));
        block.write(2);
        peer.join().unwrap();
    });
}

/// `OwnBlock::unlent` against `OwnSegment::lend`: a thread that reads its own loan keeps it from being lent, so that it cannot come back and be
/// another writer's meanwhile.
#[test]
fn loom_block_is_not_lent_while_it_is_read_here() {
    model(|| {
        let (block, is_unlent) = (Block::new(), Arc::new(Mutex::new(true)));
        let mut blocks = Blocks::new(BYTES);
        let offset = blocks.take(BYTES).unwrap();
        let sender = thread::spawn({
            let (block, is_unlent) = (Arc::clone(&block), Arc::clone(&is_unlent));
            move || {
                *is_unlent.lock().unwrap() = false;
                blocks.lend(offset);
                // The peer gives it back at once, and the next writer gets it.
                assert!(blocks.give_lent(offset));
                assert_eq!(blocks.take(BYTES), Some(offset));
                block.write(2);
            }
        });
        let unlent = is_unlent.lock().unwrap();
        if *unlent {
            let held = kept("unlent-held").then_some(unlent);
            assert_eq!(block.read(), 0);
            drop(held);
        }
        sender.join().unwrap();
    });
}

/// `OwnBlock::drop` against `look_or_pay`: what was paid for the memory of a block is given back before the block is free, so that who finds it free
/// finds that too; and who does not is told. So it is with `Held` and its end.
#[test]
fn loom_block_that_is_dropped_leaves_room_for_who_looks_or_waits() {
    #[derive(Default)]
    struct State {
        is_free: bool,
        is_wanted: bool,
    }
    model(|| {
        let state = Arc::new(Mutex::new(State::default()));
        let has_budget = Arc::new(AtomicBool::new(false));
        let owner = thread::spawn({
            let (state, has_budget) = (Arc::clone(&state), Arc::clone(&has_budget));
            move || {
                let unmap = || has_budget.store(true, Ordering::Relaxed);
                kept("unmap-then-free").then(unmap);
                let is_told = {
                    let mut state = state.lock().unwrap(); // `loan_was_dropped`
                    state.is_free = true;
                    state.is_wanted
                };
                (!kept("unmap-then-free")).then(unmap);
                is_told
            }
        });
        let waits = {
            let mut state = state.lock().unwrap();
            // The segment is retired then, and another one is paid for.
            let is_refused = state.is_free && !has_budget.load(Ordering::Relaxed);
            assert!(!is_refused, "room is refused");
            state.is_wanted = !state.is_free;
            state.is_wanted
        };
        let is_told = owner.join().unwrap();
        assert_eq!(waits, is_told, "who waits for room waits for ever");
    });
}

/// `Held::drop` and `State::collect_some`: the flag goes down before the list is taken, so that what comes later raises it again.
#[test]
fn loom_every_block_that_is_dropped_is_told_of() {
    model(|| {
        let is_any = Arc::new(AtomicBool::new(false));
        let blocks = Arc::new(Mutex::new(0));
        let told = Arc::new(Mutex::new(0)); // what the state lock protects
        let drop_one = {
            let (is_any, blocks) = (Arc::clone(&is_any), Arc::clone(&blocks));
            let told = Arc::clone(&told);
            move || {
                *blocks.lock().unwrap() += 1;
                is_any.store(true, Ordering::Relaxed);
                let mut told = told.lock().unwrap(); // `give_back_dropped`
                if is_any.load(Ordering::Relaxed) {
                    let (early, late) = (kept("returns-clear-first"), !kept("returns-clear-first"));
                    let clear = || is_any.store(false, Ordering::Relaxed);
                    early.then(clear);
                    *told += std::mem::take(&mut *blocks.lock().unwrap());
                    late.then(clear);
                }
            }
        };
        let other = thread::spawn(drop_one.clone());
        drop_one();
        other.join().unwrap();
        let told = *told.lock().unwrap();
        assert_eq!(told, 2, "the peer waits for ever for a block");
    });
}

/// `State::add_segment` against `adopt_segment`: a segment lies in the socket when its frame is read.
#[test]
fn loom_segment_has_been_sent_when_its_frame_is_read() {
    model(|| {
        let (mut server, mut client) = sides(SleepOn::Futex);
        let socket = Arc::new(Mutex::new(0));
        let sender = thread::spawn({
            let socket = Arc::clone(&socket);
            move || {
                let send = || *socket.lock().unwrap() += 1;
                kept("segment-send-first").then(send);
                assert!(server.try_send(1));
                (!kept("segment-send-first")).then(send);
            }
        });
        while client.try_receive().is_none() {
            thread::yield_now();
        }
        let sent = *socket.lock().unwrap();
        assert_eq!(sent, 1, "the segment is missing");
        sender.join().unwrap();
    });
}

/// A worker has written an answer and will publish it. `send_returns` comes between: it must not publish the answer quietly, that is, for
/// those only who wait for room.
#[test]
fn loom_answer_that_is_published_with_a_returned_block_wakes_its_caller() {
    model(|| {
        let (mut server, mut client) = sides(SleepOn::Doorbell);
        let worker = thread::spawn(move || {
            assert!(server.write(1));
            let is_all = !server.has_unpublished() || !kept("quiet-alone");
            assert!(server.write(2)); // the block
            let published = server.publish();
            server.notify(published && !is_all, published);
            let published = server.publish(); // the end of the worker's batch
            server.notify(published, false);
        });
        assert_eq!(client.receive(), 1);
        worker.join().unwrap();
    });
}

/// `publish_quietly` and `tell`: blocks go back to a reader that sleeps, until they fill the ring. Whoever finds no room then wakes it.
#[test]
fn loom_writer_without_room_wakes_the_reader_of_what_was_published_quietly() {
    model(|| {
        let (mut writer, mut reader) = sides(SleepOn::Doorbell);
        let sleep = reader.announce(false);
        (1..=FULL).for_each(|value| assert!(writer.write(value)));
        let published = writer.publish();
        writer.notify(false, published);
        let peer = thread::spawn(move || {
            reader.block(sleep);
            (1..=FULL).for_each(|value| assert_eq!(reader.try_receive(), Some(value)));
            reader.release();
            reader.notify(false, true);
            reader.receive()
        });
        let mut is_written = writer.write(LAST);
        if !is_written && kept("quiet-told") {
            writer.notify(true, false);
        }
        while !is_written {
            writer.sleep(true);
            is_written = writer.write(LAST);
        }
        let published = writer.publish();
        writer.notify(published, false);
        assert_eq!(peer.join().unwrap(), LAST);
    });
}

const LAST: u8 = FULL + 1;

/// What the state lock of a server's connection protects of its loans, with one segment of one block.
struct Pool {
    has_segment: bool,
    is_used: bool,
    /// Another segment may be made.
    has_budget: bool,
    is_wanted: bool,
}

impl Pool {
    fn allocate(&mut self) -> bool {
        let fits = self.has_segment && !self.is_used;
        self.is_used |= fits;
        fits
    }

    /// `Spending::take`.
    fn pay(&mut self) -> bool {
        std::mem::take(&mut self.has_budget)
    }
}

/// `Connection::try_and_look`. `None` if it has to wait.
fn try_and_look(pool: &Mutex<Pool>) -> Option<()> {
    loop {
        let paid_before = !kept("pay-with-look") && pool.lock().unwrap().pay();
        let mut looked = pool.lock().unwrap();
        if looked.allocate() {
            return Some(());
        }
        if paid_before || kept("pay-with-look") && looked.pay() {
            drop(looked);
            pool.lock().unwrap().has_segment = true; // `Connection::make_paid`
            continue;
        }
        assert!(looked.is_used, "room is refused");
        if !kept("register-with-look") {
            drop(looked);
            looked = pool.lock().unwrap();
        }
        looked.is_wanted = true;
        return None;
    }
}

/// A handler looks for room while the only block comes back and its segment is retired, after which somebody else takes what there is, and the
/// same happens again. It gets one, or is woken.
#[test]
fn loom_handler_that_looks_for_room_while_a_segment_goes_has_some() {
    model(|| {
        let pool = Arc::new(Mutex::new(Pool {
            has_segment: true,
            is_used: true, // by the client
            has_budget: false,
            is_wanted: false,
        }));
        let woken = Arc::new(Condvar::new());
        let worker = thread::spawn({
            let (pool, woken) = (Arc::clone(&pool), Arc::clone(&woken));
            move || {
                for _ in 0..2 {
                    let mut state = pool.lock().unwrap();
                    state.is_used = false; // `Event::Released`
                    if std::mem::take(&mut state.is_wanted) {
                        woken.notify_one();
                    }
                    drop(state);
                    let mut state = pool.lock().unwrap(); // `State::retire`
                    if state.has_segment && !state.is_used {
                        state.has_segment = false;
                        state.has_budget = true;
                    }
                    drop(state);
                    // Somebody else, if the handler has not got it: it is there to give it back then.
                    if !pool.lock().unwrap().allocate() {
                        return;
                    }
                }
                let mut state = pool.lock().unwrap();
                state.is_used = false;
                if std::mem::take(&mut state.is_wanted) {
                    woken.notify_one();
                }
            }
        });
        while try_and_look(&pool).is_none() {
            let mut state = pool.lock().unwrap();
            while state.is_wanted {
                state = woken.wait(state).unwrap();
            }
        }
        worker.join().unwrap();
    });
}

/// `announce_asleep` against `send_returns`: the last block comes back before the worker looks what can be given up, or finds that it sleeps.
#[test]
fn loom_last_block_that_comes_back_while_the_worker_falls_asleep_is_acted_on() {
    #[derive(Default)]
    struct State {
        is_back: bool,
        is_announced: bool,
        /// The worker has given up the segment, or has been asked to look again.
        is_settled: bool,
    }
    model(|| {
        let state = Arc::new(Mutex::new(State::default()));
        let handler = thread::spawn({
            let state = Arc::clone(&state);
            move || {
                let mut state = state.lock().unwrap();
                state.is_back = true;
                state.is_settled |= state.is_announced;
            }
        });
        let mut worker = state.lock().unwrap();
        worker.is_settled |= worker.is_back;
        if !kept("shrink-with-announce") {
            drop(worker);
            worker = state.lock().unwrap();
        }
        worker.is_announced = true;
        drop(worker);
        handler.join().unwrap();
        let is_settled = state.lock().unwrap().is_settled;
        assert!(is_settled, "the segment waits for ever");
    });
}
