//! A client of the same server that minds its own business.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use doorbell::{Spin, blocking};
use doorbell_shm::sys::pin_current_thread;
use doorbell_testkit::{PATIENCE, eventually, prefer_threads, scheduled};

use super::calm::{self, Manner};
use crate::support::messages::Add;

/// Calls all the time, and notes how long each call takes. The first call that fails is the last one.
pub(crate) struct Witness {
    shared: Arc<Shared>,
    calling: Option<JoinHandle<()>>,
    calm: Duration,
}

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    took: Mutex<Vec<Duration>>,
    failed: Mutex<Option<String>>,
}

/// What the witness noted over a while.
pub(crate) struct Noted {
    calls: usize,
    p99: Duration,
    calm: Duration,
}

/// What it felt over a while of calls without pauses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Felt {
    /// Times within which half of the calls were answered, and 99 of 100.
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// For which part of the time it had no processor.
    pub(crate) waited: f64,
}

impl Witness {
    pub(crate) fn start(name: &str) -> Self {
        let client = match calm::manner() {
            // The answer comes from its own CPU.
            Manner::Apart { .. } => blocking::Client::builder(name).spin(Spin::Never).connect(),
            _ => blocking::Client::connect(name),
        };
        let client = client.expect("the server listens");
        let shared = Arc::new(Shared::default());
        let calling = std::thread::Builder::new().name(THREAD.to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.call_until_over(&client)
        });
        let mut witness = Self {
            shared,
            calling: Some(calling.expect("a thread")),
            calm: Duration::ZERO,
        };
        eventually("a hundred calls undisturbed", || witness.mark() >= 100);
        witness.calm = witness.since(0).p99;
        witness
    }

    /// Calls so far.
    pub(crate) fn mark(&self) -> usize {
        self.shared.took.lock().unwrap().len()
    }

    /// It is answered now, some times, as before.
    pub(crate) fn goes_on(&self, during: &str) {
        let since = self.mark();
        eventually("the witness is answered", || {
            let failed = self.shared.failed.lock().unwrap().clone();
            assert_eq!(failed, None, "{during}: the witness was disturbed");
            self.mark() >= since + 5
        });
    }

    /// What it noted since a mark. No call may have taken so long that it was held up rather than slowed down.
    pub(crate) fn since(&self, mark: usize) -> Noted {
        let mut took = self.shared.took.lock().unwrap()[mark..].to_vec();
        took.sort_unstable();
        let p99 = took[took.len() * 99 / 100];
        assert!(
            p99 < SLOWEST_P99,
            "the witness waits {p99:?}, calm {:?}",
            self.calm
        );
        Noted {
            calls: took.len(),
            p99,
            calm: self.calm,
        }
    }

    /// Waits for so long, and returns what it felt meanwhile.
    pub(crate) fn feels(&self, length: Duration) -> Felt {
        self.shared.took.lock().unwrap().clear();
        let scheduled = || scheduled(std::process::id(), |name| name == THREAD);
        let before = scheduled();
        std::thread::sleep(length); // what is measured
        let had = scheduled() - before;
        let mut took = self.shared.took.lock().unwrap().clone();
        self.goes_on("while it is measured");
        took.sort_unstable();
        let within = |percent| took.get(took.len() * percent / 100).copied();
        Felt {
            p50: within(50).unwrap_or(length),
            p99: within(99).unwrap_or(length),
            waited: had.waited.as_secs_f64() / length.as_secs_f64(),
        }
    }

    /// Stops calling, after some more calls.
    pub(crate) fn leave(&mut self) {
        self.goes_on("at the end");
        self.shared.over.store(true, Ordering::Relaxed);
        self.calling.take().expect("once").join().unwrap();
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn call_until_over(&self, client: &blocking::Client) {
        let manner = calm::manner();
        if let Manner::Apart { cpu } = manner {
            pin_current_thread(cpu).expect("a CPU of this process");
            prefer_threads(std::process::id(), |name| name == THREAD, -20);
        }
        for number in 0.. {
            let start = Instant::now();
            match client.call(Add(number, 1)).timeout(PATIENCE / 3).wait() {
                Ok(sum) if sum == number + 1 => {}
                other => {
                    *self.failed.lock().unwrap() = Some(format!("call {number} gave {other:?}"));
                    return;
                }
            }
            self.took.lock().unwrap().push(start.elapsed());
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            if !matches!(manner, Manner::WithoutPauses) {
                std::thread::sleep(PAUSE); // a client with little to do, not one that takes a whole processor
            }
        }
    }
}

impl std::fmt::Display for Noted {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { calls, p99, calm } = self;
        write!(out, "witness: {calls:5} calls, p99 {p99:?} (calm {calm:?})")
    }
}

const THREAD: &str = "witness";

const PAUSE: Duration = Duration::from_micros(300);

/// Far more than any disturbance of a loaded machine, and less than what a server that is held up takes.
const SLOWEST_P99: Duration = Duration::from_secs(5);
