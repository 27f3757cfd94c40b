//! The two runtimes of tokio, with their usual settings.

use anyhow::Context as _;
use tokio::runtime::{Builder, Runtime};

use super::Mode;
use super::share::{Crowd, Share, Window};
use crate::clock::{Caller, Limit};
use crate::host;
use crate::part::Part;
use crate::sample::Figures;

/// Makes the runtime of the part's mode, its threads on the CPU of the part if it has one.
///
/// # Errors
///
/// If the system gives no threads.
pub(crate) fn runtime(part: &Part) -> anyhow::Result<Runtime> {
    let mut builder = match part.mode {
        Mode::CurrentThread => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    let cpu = part.cpu;
    builder
        .enable_all()
        .on_thread_start(move || {
            // The same call has succeeded on other threads, and a runtime has no way to report it.
            _ = host::pin_current_thread(cpu);
        })
        .build()
        .context("cannot make a runtime")
}

/// Runs a measurement as a task, as a program's own tasks run: not on the thread that only waits for it.
///
/// # Errors
///
/// The error of the measurement.
pub(crate) fn run<F>(runtime: &Runtime, measurement: F) -> anyhow::Result<Figures>
where
    F: Future<Output = anyhow::Result<Figures>> + Send + 'static,
{
    runtime.block_on(runtime.spawn(measurement))?
}

/// Lets every caller make round trips one after the other, all at once.
///
/// # Errors
///
/// The first error of a caller.
pub(crate) async fn all_at_once<C: Caller>(
    callers: Vec<C>,
    limit: Limit,
) -> anyhow::Result<Figures> {
    let window = Window::starting_at(host::shared_now(), limit);
    let tasks: Vec<_> = callers
        .into_iter()
        .map(|mut caller| {
            tokio::spawn(async move {
                let mut share = Share::new(window);
                while share.goes_on() {
                    caller.call().await?;
                    share.end_call();
                }
                anyhow::Ok(share)
            })
        })
        .collect();
    let mut all = Crowd::new(window);
    for task in tasks {
        let share = task.await??;
        all.add(share.messages(), share.times());
    }
    Ok(all.figures())
}
