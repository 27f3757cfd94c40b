//! What every caller is doing, for whoever has to say why the test hangs.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// How long one thing may take before it counts as a hang. Everything here takes milliseconds on an idle machine.
const LIMIT: Duration = Duration::from_secs(20);

/// Shared by all callers.
#[derive(Default)]
pub(crate) struct Board {
    callers: Mutex<Vec<Arc<Caller>>>,
    pub(crate) over: AtomicBool,
    pub(crate) begun: AtomicU64,
    pub(crate) ended: AtomicU64,
}

/// One task or thread that calls.
pub(crate) struct Caller {
    pub(crate) number: u32,
    kind: &'static str,
    doing: Mutex<(String, Instant)>,
    /// Notifications that were accepted.
    pub(crate) notified: AtomicU32,
    left: AtomicBool,
}

impl Board {
    pub(crate) fn join(&self, kind: &'static str) -> Arc<Caller> {
        let mut callers = self.callers.lock().unwrap();
        let caller = Arc::new(Caller {
            number: u32::try_from(callers.len()).unwrap(),
            kind,
            doing: Mutex::new(("nothing yet".to_owned(), Instant::now())),
            notified: AtomicU32::new(0),
            left: AtomicBool::new(false),
        });
        callers.push(Arc::clone(&caller));
        caller
    }

    /// Returns what is to be done next, or `None` if time is up.
    pub(crate) fn begin(&self, caller: &Caller, what: String) -> bool {
        if self.over.load(Ordering::Relaxed) {
            return false;
        }
        self.begun.fetch_add(1, Ordering::Relaxed);
        *caller.doing.lock().unwrap() = (what, Instant::now());
        true
    }

    pub(crate) fn end(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn leave(&self, caller: &Caller) {
        caller.left.store(true, Ordering::Relaxed);
    }

    /// Returns `true` once every caller has left.
    ///
    /// # Panics
    ///
    /// If somebody waits for too long; says for what, and what the others are doing.
    pub(crate) fn all_left(&self) -> bool {
        let callers = self.callers.lock().unwrap();
        let busy = || {
            callers
                .iter()
                .filter(|caller| !caller.left.load(Ordering::Relaxed))
        };
        let hangs = busy().any(|caller| caller.doing.lock().unwrap().1.elapsed() > LIMIT);
        if hangs {
            let all: Vec<_> = busy().map(|caller| caller.describe()).collect();
            panic!("somebody waits for ever:\n{}", all.join("\n"));
        }
        busy().next().is_none()
    }

    /// Returns how many notifications each caller has sent.
    pub(crate) fn notified(&self) -> Vec<u32> {
        let callers = self.callers.lock().unwrap();
        let counts = callers
            .iter()
            .map(|caller| caller.notified.load(Ordering::Relaxed));
        counts.collect()
    }
}

impl Caller {
    /// Returns the next notification's number, which nobody else uses.
    pub(crate) fn next_notification(&self) -> u32 {
        self.number << 20 | self.notified.load(Ordering::Relaxed)
    }

    fn describe(&self) -> String {
        let doing = self.doing.lock().unwrap();
        format!(
            "caller {} ({}), for {:?}: {}",
            self.number,
            self.kind,
            doing.1.elapsed(),
            doing.0
        )
    }
}
