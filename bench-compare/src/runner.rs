//! Measures all groups, near and far apart, and shows what was found.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::clock::Limit;
use crate::interrupt::{self, interrupted};
use crate::options::Options;
use crate::part::{Part, Side, TOKEN_PREFIX, Work};
use crate::peers::{Peer, node};
use crate::placement::Placement;
use crate::plan::{self, Case, Group, Pin};
use crate::process::{self, Process};
use crate::row::{self, Outcome, Row};
use crate::sample::Figures;
use crate::{bounce, host, report, table, versions};

/// Measures what the user wants, prints the table and writes the files. What was measured before an interruption is shown.
///
/// # Errors
///
/// If nothing is to be measured or a file cannot be written.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let mut groups = plan::chosen(options.only.as_deref());
    if options.list {
        for group in &groups {
            println!("{:32}{}", group.name, group.title);
        }
        return Ok(());
    }
    if groups.is_empty() {
        bail!("no group and no peer has such a name; --list shows the groups");
    }
    for cpu in [options.cpus.client, options.cpus.server] {
        if !host::may_run_on(cpu) {
            bail!("this process may not run on CPU {cpu}; choose two others with --cpus");
        }
    }
    interrupt::raise_flag_on_ctrl_c()?;
    host::allow_many_descriptors();
    let mut notes = vec![host::describe(), versions::of_rivals()];
    match node::version() {
        Some(version) => notes.push(format!("Node.js {version}")),
        None => {
            leave_out_node(&mut groups);
            notes.push(node::MISSING.to_owned());
        }
    }
    let mut rows = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        let mut outcomes = Vec::new();
        for run in 1..=options.runs() {
            progress(&format!(
                "{}/{} {}, run {run}",
                index + 1,
                groups.len(),
                group.name
            ));
            outcomes.extend(one_run(group, options));
        }
        rows.extend(Row::of_runs(group, &outcomes));
        if interrupted() {
            break;
        }
    }
    progress("");
    if interrupted() {
        notes.push("interrupted: not everything was measured".to_owned());
    }
    if options.quick {
        notes
            .push("a quick run, to see that everything works: the figures mean nothing".to_owned());
    }
    show(options, &rows, &notes)
}

/// Replaces the line that says what is being measured, where somebody sees it.
fn progress(text: &str) {
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
    }
}

fn leave_out_node(groups: &mut Vec<Group>) {
    for group in groups.iter_mut() {
        group.cases.retain(|case| case.peer != Peer::Node);
    }
    groups.retain(|group| group.cases.len() > 1 || group.work != Work::Completion);
}

fn show(options: &Options, rows: &[Row], notes: &[String]) -> anyhow::Result<()> {
    if let Some(path) = &options.json {
        let unwritable = || format!("cannot write {}", path.display());
        let mut file = BufWriter::new(File::create(path).with_context(unwritable)?);
        for row in rows {
            writeln!(file, "{}", row.to_json())?;
        }
        file.flush().with_context(unwritable)?;
    }
    report::write(&options.report, rows, notes)?;
    let mut out = io::stdout().lock();
    writeln!(out, "{}", table::render(rows))?;
    for note in notes {
        writeln!(out, "{note}")?;
    }
    writeln!(out, "Plots: {}", options.report.display())?;
    Ok(())
}

/// Measures each case once, and Doorbell again wherever the CPUs were moved since, so that each rival has a row of Doorbell of
/// the same run and placement beside it.
fn one_run(group: &Group, options: &Options) -> Vec<Outcome> {
    let base = group.cases[0];
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut tries_left = if options.quick {
        0
    } else {
        MAX_MORE_OF_DOORBELL
    };
    for &case in &group.cases {
        let outcome = steady(group, case, options);
        let placement = outcome.placement;
        let needs_base = outcome.figures.is_ok() && placement.is_steady();
        outcomes.push(outcome);
        while needs_base
            && tries_left > 0
            && !interrupted()
            && !outcomes
                .iter()
                .any(|other| other.is_beside(base, placement))
        {
            tries_left -= 1;
            outcomes.push(steady(group, base, options));
        }
        if interrupted() {
            // What was cut short has failed for no reason of its own.
            outcomes.retain(|outcome| outcome.figures.is_ok());
            break;
        }
    }
    row::compare(group, &mut outcomes);
    outcomes
}

/// Measures one case until the CPUs stay where they are, a few times at most.
fn steady(group: &Group, case: Case, options: &Options) -> Outcome {
    let mut attempts = if options.quick { 1 } else { MAX_ATTEMPTS };
    loop {
        let outcome = measure(group, case, options);
        attempts -= 1;
        if outcome.placement.is_steady() || attempts == 0 || interrupted() {
            return outcome;
        }
    }
}

fn measure(group: &Group, case: Case, options: &Options) -> Outcome {
    let before = bounce::round_trip_ns(options.cpus, options.quick);
    let figures = measure_once(group, case, options).map_err(|error| format!("{error:#}"));
    let after = bounce::round_trip_ns(options.cpus, options.quick);
    let bounce_ns = before.zip(after);
    Outcome {
        case,
        figures,
        placement: Placement::of_bounces(bounce_ns),
        bounce_ns,
        doorbell_ahead: None,
    }
}

/// Starts both processes and ends them, whatever they do.
fn measure_once(group: &Group, case: Case, options: &Options) -> anyhow::Result<Figures> {
    let directory = tempfile::Builder::new()
        .prefix(TOKEN_PREFIX)
        .tempdir()
        .context("cannot make a temporary directory")?;
    let token = directory
        .path()
        .file_name()
        .map_or_else(|| TOKEN_PREFIX.into(), |name| name.to_string_lossy());
    let (client_cpu, server_cpu) = match group.pin {
        Pin::Cross => (Some(options.cpus.client), Some(options.cpus.server)),
        Pin::None => (None, None),
    };
    let server = Part {
        side: Side::Server,
        peer: case.peer,
        mode: case.mode,
        work: group.work,
        size_bytes: group.size_bytes,
        limit: limit(group, case.peer, options),
        cpu: server_cpu,
        directory: directory.path().to_owned(),
        token: token.into_owned(),
    };
    let client = Part {
        side: Side::Client,
        cpu: client_cpu,
        ..server.clone()
    };
    let figures = measure_parts(&server, &client);
    process::remove_leftovers(&server.token);
    let figures = figures?;
    if figures.messages == 0 {
        bail!("no message was finished");
    }
    Ok(figures)
}

fn measure_parts(server: &Part, client: &Part) -> anyhow::Result<Figures> {
    let patience = patience(client);
    if client.peer == Peer::Node {
        return node::start(client)?.wait_for_figures(patience);
    }
    let mut server = Process::start_part(server)?;
    server.wait_until_ready(TIME_TO_START)?;
    Process::start_part(client)?.wait_for_figures(patience)
}

/// Long enough for a few round trips, however long the pauses between them and however many take turns.
fn limit(group: &Group, peer: Peer, options: &Options) -> Limit {
    let least = match (group.work, group.pause) {
        (
            Work::Connections { count }
            | Work::Processes { count }
            | Work::Pipelined { window: count },
            _,
        ) => count as u32 * TIME_FOR_ONE_TURN,
        (_, Some(pause)) if !options.quick => LEAST_PAUSES * pause,
        _ => Duration::ZERO,
    };
    let warm_up = match peer {
        Peer::Node => options.warm_up().max(NODE_WARM_UP),
        _ => options.warm_up(),
    };
    Limit {
        warm_up,
        length: options.length().max(least),
        pause: group.pause,
    }
}

/// Returns after how long a measurement is given up.
fn patience(part: &Part) -> Duration {
    let starts = match part.work {
        Work::Processes { count } | Work::Connections { count } => count as u32,
        _ => 0,
    };
    TIME_TO_START + 2 * (part.limit.warm_up + part.limit.length) + starts * TIME_FOR_ONE_MORE
}

/// How often a case is measured until the CPUs stay where they are.
const MAX_ATTEMPTS: u32 = 3;

/// How often Doorbell is measured again in one run of a group because the CPUs were moved.
const MAX_MORE_OF_DOORBELL: u32 = 4;

/// Pauses that a measurement has at least.
const LEAST_PAUSES: u32 = 50;

/// One round trip of each of many callers, on a busy machine.
const TIME_FOR_ONE_TURN: Duration = Duration::from_micros(500);

/// Node.js compiles what runs often while it runs.
const NODE_WARM_UP: Duration = Duration::from_millis(300);

/// A process that is not ready by then never will be.
const TIME_TO_START: Duration = Duration::from_secs(10);

/// One more process or connection, on a busy machine.
const TIME_FOR_ONE_MORE: Duration = Duration::from_millis(30);
