//! The editor demo: a code editor and its engine, two real processes, on the real files of a directory.
//!
//! The editor plays a session (files, searches, completions, edits, diagnostics, a kill of the engine in the middle) over
//! Doorbell and once more over a Unix socket, compares everything that arrives with what it must be, and prints what it cost.

mod child;
mod engine;
mod link;
mod progress;
mod protocol;
mod report;
mod session;
mod socket;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use anyhow::{Context, bail};
use clap::Args;
use tokio::sync::oneshot;

use self::{
    engine::{Engine, model::Model},
    link::Transport,
    session::{Report, plan::Plan},
};

/// Arguments of `doorbell demo`.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Directory whose files the editor works on
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Plays the session over one transport only
    #[arg(long, value_name = "TRANSPORT")]
    only: Option<Transport>,
    /// Amount of work, in percent of the usual
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    work: u16,
}

/// Arguments of the engine process that the demo starts.
#[derive(Clone, Debug, Args)]
pub struct EngineArgs {
    /// What carries the calls
    #[arg(long)]
    transport: Transport,
    /// Socket at which to serve
    #[arg(long)]
    path: PathBuf,
    /// Directory to serve
    dir: PathBuf,
}

/// Plays the demo and prints its table.
///
/// # Errors
///
/// If the directory cannot be used, an engine cannot be started, or anything differed from what it has to be.
pub async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let root = directory(&args.dir)?;
    eprintln!("Reading {} ...", root.display());
    let read = tokio::task::spawn_blocking(move || {
        let model = Model::of_tree(&root);
        (Plan::of_tree(&root, &model, usize::from(args.work)), model)
    });
    let (Some(plan), model) = read.await? else {
        let dir = args.dir.display();
        println!(
            "There is no text file in {dir}: nothing to demonstrate. Name a directory with source code."
        );
        return Ok(());
    };
    describe(&plan, &model);
    let (plan, model) = (Arc::new(plan), Arc::new(model));
    let reports = tokio::select! {
        reports = play_all(args.only, &plan, &model) => reports?,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"), // an engine dies with its handle, and the sockets with theirs
    };
    println!("{}", report::render(&reports));
    judge(&reports)
}

async fn play_all(
    only: Option<Transport>,
    plan: &Arc<Plan>,
    model: &Arc<Model>,
) -> anyhow::Result<Vec<Report>> {
    let sockets = tempfile::tempdir().context("cannot make a directory for the sockets")?;
    let mut reports = Vec::new();
    for transport in [Transport::Doorbell, Transport::Socket] {
        if only.is_none_or(|only| only == transport) {
            eprintln!("Session over {}:", transport.title());
            let path = sockets.path().join(format!("engine-{}", reports.len()));
            reports
                .push(session::play(transport, &path, Arc::clone(plan), Arc::clone(model)).await?);
        }
    }
    Ok(reports)
}

/// The engine of this process, which serves as long as that lives.
static ENGINE: OnceLock<Engine> = OnceLock::new();

/// Serves the engine until its standard input ends.
///
/// # Errors
///
/// If it cannot serve.
pub async fn run_engine(args: EngineArgs) -> anyhow::Result<()> {
    let engine = tokio::task::spawn_blocking(move || Engine::new(args.dir)).await?;
    let engine = ENGINE.get_or_init(|| engine);
    let ready = || println!("{}", child::READY_LINE);
    match args.transport {
        Transport::Doorbell => link::doorbell::serve(engine, &args.path, ready, end_of_input())
            .await
            .context("the engine cannot serve"),
        Transport::Socket => socket::serve(engine, &args.path, ready, end_of_input())
            .await
            .context("the engine cannot serve"),
    }
}

/// Waits until the process that started this one closes our standard input or ends.
async fn end_of_input() {
    let (ended, end) = oneshot::channel();
    std::thread::spawn(move || {
        let read = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = (read, ended.send(())); // ended either way; and if nobody waits, the process is ending already
    });
    let _ = end.await; // the thread always sends
}

fn directory(dir: &Path) -> anyhow::Result<PathBuf> {
    let unusable = || format!("cannot use {}: name a directory that exists", dir.display());
    let root = dir.canonicalize().with_context(unusable)?;
    if !root.is_dir() {
        bail!(
            "{} is not a directory: name one with source code",
            dir.display()
        );
    }
    Ok(root)
}

fn describe(plan: &Plan, model: &Model) {
    let (files, bytes) = (plan.files.len(), report::bytes(plan.total_bytes()));
    let (searches, tokens) = (plan.searches.len(), model.token_count());
    eprintln!(
        "Text files: {files}, together {bytes}. Searches planned: {searches}. Tokens in the model: {tokens}."
    );
    if plan.left_out > 0 {
        eprintln!(
            "(the tree is large: {} further files are not opened)",
            plan.left_out
        );
    }
}

fn judge(reports: &[Report]) -> anyhow::Result<()> {
    let differences: u64 = reports
        .iter()
        .map(|report| report.record.difference_count)
        .sum();
    if differences > 0 {
        bail!("{differences} answers differed from what they have to be; they are listed above");
    }
    println!("Everything that arrived was what it has to be.");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::session::record::Record;

    fn report(record: Record) -> Report {
        let (costs, time, kill) = Default::default();
        Report {
            transport: Transport::Socket,
            record,
            costs,
            time,
            kill,
        }
    }

    #[test]
    fn one_difference_fails_the_demo() {
        let mut record = Record::default();
        record.compare(true, || unreachable!());
        assert!(judge(&[report(record.clone())]).is_ok());
        record.compare(false, || "a.rs: other bytes".to_owned());
        let reports = [report(Record::default()), report(record)];
        assert!(
            judge(&reports)
                .unwrap_err()
                .to_string()
                .contains("1 answers differed")
        );
        assert!(report::render(&reports).contains("a.rs: other bytes"));
    }
}
