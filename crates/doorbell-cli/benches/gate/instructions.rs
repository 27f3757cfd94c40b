//! Instructions that a client executes per message, counted by callgrind: repeatable, whatever else the machine does.
//!
//! The client runs twice under valgrind with different numbers of messages; the difference is what messages cost. It is some fifty
//! times slower than its server then, so the answers are there when it looks, and it hardly spins. If the server was kept from the
//! CPU for so long that the client fell asleep, the attempt does not count: valgrind does not know the system call for that.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};

/// Fails if a message takes more instructions than it did.
pub(crate) fn check() -> anyhow::Result<()> {
    let committed = committed()?;
    let mut worse = Vec::new();
    for kind in KINDS {
        let expected = committed
            .iter()
            .find(|(known, _)| known == kind)
            .with_context(|| format!("no committed count for '{kind}'; add it with --write"))?
            .1;
        let count = count(kind, limit(expected))?;
        let change = (count as f64 / expected as f64 - 1.0) * 100.0;
        println!("{kind}: {count} instructions, {expected} before ({change:+.1} %)");
        if count > limit(expected) {
            worse.push(format!(
                "{kind}: {count} instructions, {change:.1} % more than {expected}"
            ));
        }
    }
    ensure!(
        worse.is_empty(),
        "more instructions than {} allows:\n{}\nIf that is meant, commit the new counts: cargo bench -p doorbell-cli --bench gate -- --write",
        counts_path().display(),
        worse.join("\n")
    );
    Ok(())
}

/// Writes the counts of today.
pub(crate) fn write() -> anyhow::Result<()> {
    let mut lines = String::new();
    for kind in KINDS {
        lines += &format!("{kind}: {}\n", count(kind, 0)?);
    }
    print!("{lines}");
    Ok(fs::write(counts_path(), lines)?)
}

fn committed() -> anyhow::Result<Vec<(String, u64)>> {
    let path = counts_path();
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let entry = |line: &str| {
        let (kind, count) = line.split_once(": ")?;
        Some((kind.to_owned(), count.parse().ok()?))
    };
    text.lines()
        .map(|line| entry(line).with_context(|| format!("{}: {line}", path.display())))
        .collect()
}

fn counts_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/gate/instructions.txt")
}

fn limit(expected: u64) -> u64 {
    expected + expected * MARGIN_PERCENT / 100
}

/// Counts the instructions of one message: the least of several attempts, because spinning only adds to it. One that is within the
/// limit is enough.
fn count(kind: &str, limit: u64) -> anyhow::Result<u64> {
    let mut least = None;
    let mut counted = 0;
    for _ in 0..ATTEMPTS {
        let Some(count) = attempt(kind)? else {
            continue;
        };
        least = Some(least.map_or(count, |least: u64| least.min(count)));
        counted += 1;
        if count <= limit || counted == ENOUGH {
            break;
        }
    }
    match least {
        Some(least) => Ok(least),
        None => {
            bail!("'{kind}' could not be counted: the server was too slow in {ATTEMPTS} attempts")
        }
    }
}

/// `None` if a client fell asleep.
fn attempt(kind: &str) -> anyhow::Result<Option<u64>> {
    let place = tempfile::tempdir()?;
    let path = place.path().join("gate.sock");
    let mut server = start_server(&path)?;
    let few = run_client(kind, &path, FEW, place.path());
    let many = run_client(kind, &path, FEW + MORE, place.path());
    drop(server.stdin.take()); // ends it
    server.wait()?;
    let (Some(few), Some(many)) = (few?, many?) else {
        return Ok(None);
    };
    Ok(many.checked_sub(few).map(|difference| difference / MORE))
}

fn start_server(path: &Path) -> anyhow::Result<Child> {
    let mut server = Command::new(env::current_exe()?)
        .arg("server")
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = server.stdout.take().context("it is piped")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    ensure!(line == "READY\n", "the server did not start");
    Ok(server)
}

fn run_client(kind: &str, path: &Path, messages: u64, place: &Path) -> anyhow::Result<Option<u64>> {
    let counts = place.join("callgrind");
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", counts.display()))
        .arg(env::current_exe()?)
        .arg("client")
        .arg(path)
        .args([kind, &messages.to_string()])
        .output()
        .context("valgrind must be installed")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(
            text.contains("unhandled amd64-linux syscall"),
            "the client failed: {text}"
        );
        return Ok(None);
    }
    let text = fs::read_to_string(&counts)?;
    let total = text.lines().find_map(|line| {
        line.strip_prefix("totals: ")
            .or(line.strip_prefix("summary: "))
    });
    let total = total.context("callgrind wrote no total")?;
    Ok(Some(total.trim().parse()?))
}

/// Those that are collected into frames are missing: they cost so little that a single look too many changes the count.
const KINDS: &[&str] = &[
    "blocking unary call",
    "async unary call",
    "item received",
    "item sent",
    "notification",
];

/// How much more than before is a failure.
const MARGIN_PERCENT: u64 = 5;

const FEW: u64 = 500;
/// Messages that are counted: few enough that neither credit nor room in the ring runs out, for which a client would have to wait.
const MORE: u64 = 2_000;

const ATTEMPTS: usize = 40;
/// Attempts that worked after which the least count is taken.
const ENOUGH: usize = 15;
