//! Ctrl-C as a flag that measuring loops look at.
//!
//! The terminal sends the signal to the second process of a benchmark as well. That one ignores it: it ends when its
//! standard input does, which the first process closes in every case, even when it is killed.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::{
    atomic::{AtomicBool, Ordering},
    mpsc,
};
use std::thread;

use anyhow::Context as _;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Returns `true` once the user has pressed Ctrl-C.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Makes Ctrl-C raise the flag; pressed a second time it ends the process at once.
///
/// # Errors
///
/// If no thread or no signal handler can be made.
pub(crate) fn raise_flag_on_ctrl_c() -> anyhow::Result<()> {
    on_ctrl_c(|| {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    })
}

/// Makes this process survive Ctrl-C.
///
/// # Errors
///
/// If no thread or no signal handler can be made.
pub(crate) fn ignore_ctrl_c() -> anyhow::Result<()> {
    on_ctrl_c(|| ())
}

/// Calls `handle` at each Ctrl-C from now on, on a thread that sleeps meanwhile.
fn on_ctrl_c(handle: impl Fn() + Send + 'static) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("cannot make the runtime that waits for Ctrl-C")?;
    let (listens, is_listening) = mpsc::channel();
    thread::Builder::new()
        .name("ctrl-c".into())
        .spawn(move || {
            runtime.block_on(async {
                loop {
                    let mut pressed = pin!(tokio::signal::ctrl_c());
                    let pressed = poll_fn(|cx| {
                        let polled = pressed.as_mut().poll(cx);
                        let _ = listens.send(()); // polled once, it listens
                        polled
                    });
                    if pressed.await.is_err() {
                        break;
                    }
                    handle();
                }
            });
        })?;
    // Until then the signal would end the process.
    is_listening.recv().context("cannot listen for Ctrl-C")
}
