//! What the lanes of a session share while they work against one engine process.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use tokio::{sync::watch, time::timeout};

use super::{plan::Plan, record::Record};
use crate::demo::{
    engine::model::Model,
    link::{Ending, Failure, Link},
    progress::Progress,
};

/// One strand of the session; all run at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Opens files.
    Files,
    /// Searches.
    Search,
    /// Asks for completions.
    Complete,
    /// Types, and asks for diagnostics.
    Edit,
}

/// What the lanes share.
#[derive(Debug)]
pub(crate) struct Context {
    /// What to do and what has to come of it.
    pub(crate) plan: Arc<Plan>,
    /// The model that the engine has too.
    pub(crate) model: Arc<Model>,
    /// Connection to the engine.
    pub(crate) link: Link,
    /// What the user sees.
    pub(crate) progress: Arc<Progress>,
    record: Arc<Mutex<Record>>,
    /// Pieces of work done by each lane against this engine.
    done: watch::Sender<[usize; 4]>,
    is_killed: AtomicBool,
    is_broken: AtomicBool,
}

/// The engine has gone, or works no more: the lane hands back its work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interrupted;

impl Context {
    /// Starts work against one engine process.
    pub(crate) fn new(
        plan: Arc<Plan>,
        model: Arc<Model>,
        link: Link,
        progress: Arc<Progress>,
        record: Arc<Mutex<Record>>,
    ) -> Self {
        let (is_killed, is_broken) = (AtomicBool::new(false), AtomicBool::new(false));
        Self {
            plan,
            model,
            link,
            progress,
            record,
            done: watch::Sender::default(),
            is_killed,
            is_broken,
        }
    }

    /// Gives access to the record.
    pub(crate) fn record<T>(&self, with: impl FnOnce(&mut Record) -> T) -> T {
        with(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells that failures are expected from now on.
    pub(crate) fn announce_kill(&self) {
        self.is_killed.store(true, Relaxed);
    }

    /// Waits until each of `lanes` has done a piece of work.
    pub(crate) async fn all_at_work(&self, lanes: &[Lane]) {
        let mut done = self.done.subscribe();
        let at_work = done
            .wait_for(|done| lanes.iter().all(|lane| done[*lane as usize] > 0))
            .await;
        drop(at_work); // the sender is a field of self, so that this cannot fail
    }

    /// Does one piece of a lane's work, unless the engine has gone, and records how it fails.
    ///
    /// # Errors
    ///
    /// [`Interrupted`] if the work has to be done again with the next engine.
    pub(crate) async fn attempt(
        &self,
        what: &str,
        work: impl Future<Output = Result<(), Failure>>,
    ) -> Result<(), Interrupted> {
        if self.is_broken.load(Relaxed) {
            return Err(Interrupted);
        }
        match timeout(self.plan.limit, work).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failure)) => self.fail(what, &failure),
            Err(_) => {
                self.is_broken.store(true, Relaxed);
                self.record(|record| {
                    record.differ(format!("{what}: no outcome within {:?}", self.plan.limit))
                });
                Err(Interrupted)
            }
        }
    }

    /// Counts a piece of work as done.
    pub(crate) fn advance(&self, lane: Lane) {
        self.progress.advance(lane as usize);
        self.done.send_modify(|done| done[lane as usize] += 1);
    }

    fn fail(&self, what: &str, failure: &Failure) -> Result<(), Interrupted> {
        let is_expected = failure.ending != Ending::Refused && self.is_killed.load(Relaxed);
        self.record(|record| {
            record.add_failure(failure);
            if !is_expected {
                record.differ(format!(
                    "{what} failed ({:?}): {}",
                    failure.ending, failure.text
                ));
            }
        });
        if failure.ending == Ending::Refused {
            return Ok(()); // the same request would be refused again
        }
        self.is_broken.store(true, Relaxed);
        Err(Interrupted)
    }
}
