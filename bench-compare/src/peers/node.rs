//! Node.js, as an editor and its engine use it: `child_process.fork` with both of its serializations, and `net` over a Unix
//! socket with a line of JSON for each message.
//!
//! Both sides serialize and both wait for the whole message. The scripts are part of this program; they run where the
//! measurement's directory is.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;

use crate::part::Part;
use crate::process::Process;

/// Starts the client, which starts its server.
///
/// # Errors
///
/// If there is no Node.js.
pub(crate) fn start(part: &Part) -> anyhow::Result<Process> {
    let (client, server) = (
        part.directory.join("client.mjs"),
        part.directory.join("server.mjs"),
    );
    fs::write(&client, CLIENT)?;
    fs::write(&server, SERVER)?;
    let milliseconds = |length: Duration| (length.as_secs_f64() * 1e3).to_string();
    let mut command = Command::new(PROGRAM);
    command
        .arg(client)
        .arg(part.mode.name())
        .arg(server)
        .arg(part.socket())
        .arg(part.size_bytes.to_string())
        .arg(milliseconds(part.limit.warm_up))
        .arg(milliseconds(part.limit.length))
        .arg(part.limit.pause.map_or("-1".into(), milliseconds));
    Process::start(command, part.directory.join("node.err")).context(MISSING)
}

/// Returns the version of Node.js, or `None` if there is none.
pub(crate) fn version() -> Option<String> {
    let output = Command::new(PROGRAM).arg("--version").output().ok()?;
    let version = String::from_utf8(output.stdout).ok()?;
    Some(version.trim().to_owned()).filter(|version| !version.is_empty())
}

/// What to do when there is no Node.js.
pub(crate) const MISSING: &str = "the rows of Node.js need the command `node`, version 18 or later: on Debian, apt install nodejs";

const PROGRAM: &str = "node";
const CLIENT: &str = include_str!("../../node/client.mjs");
const SERVER: &str = include_str!("../../node/server.mjs");
