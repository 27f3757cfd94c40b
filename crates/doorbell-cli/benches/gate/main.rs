//! Is Doorbell as fast as it was? Fails with a message that says what is not, and by how much.
//!
//! Two kinds of figures that hold on any machine: instructions per message, counted by valgrind, against committed values; and
//! ratios to a raw reference of the same run, with margins that leave room for a bad day of the host.
//!
//! `cargo bench -p doorbell-cli --bench gate`; `-- --write` commits the counts of today.

mod instructions;
mod party;
mod ratios;

use std::{env, process::ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["server", path] => party::serve(path),
        ["client", path, kind, count] => party::run_client(path, kind, count),
        _ => check(words.contains(&"--write")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check(write: bool) -> anyhow::Result<()> {
    let counted = if write {
        instructions::write()
    } else {
        instructions::check()
    };
    let compared = ratios::check();
    counted.and(compared)
}
