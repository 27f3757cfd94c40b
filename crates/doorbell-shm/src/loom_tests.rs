//! Models of the ring and of waking, run by loom in every interleaving.
//!
//! They run the real `Producer`, `Consumer`, `Announcer`, `Notifier`, `Kick`, `Brake` and `Blocks` on heap regions. The
//! operating system is a model: a futex and a doorbell made of a mutex and a condition variable; and so are the steps of the crate above, which
//! does not build under loom. A lost
//! wake-up shows as a deadlock, a missing edge as two unordered accesses to a cell of ring data.
//!
//! `ci/loom.sh` runs each model as it is, and then with each place weakened that it is there for.

mod brake;
mod client;
mod edges;
mod kick;
mod loans;
mod locks;
mod server;
mod side;
mod wakeups;

/// Runs `body` in every interleaving; `LOOM_MAX_PREEMPTIONS` bounds them for a quicker look.
fn model(body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 10_000;
    builder.check(body);
}
