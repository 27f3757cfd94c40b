//! What a process holds, as `/proc` tells.

use std::path::PathBuf;

/// Returns how many descriptors the process has open. Of this process, the one needed to look is not counted.
///
/// # Panics
///
/// If there is no such process.
pub fn descriptors(process: u32) -> usize {
    let count = entries(process, "fd");
    if process == std::process::id() {
        count - 1
    } else {
        count
    }
}

/// Returns how many threads the process has.
///
/// # Panics
///
/// If there is no such process.
pub fn threads(process: u32) -> usize {
    entries(process, "task")
}

/// Returns how many mappings of Doorbell's memory the process has.
///
/// # Panics
///
/// If there is no such process.
pub fn mappings(process: u32) -> usize {
    let maps = std::fs::read_to_string(path(process, "maps")).expect("the process lives");
    maps.lines()
        .filter(|line| line.contains("/memfd:doorbell"))
        .count()
}

fn entries(process: u32, what: &str) -> usize {
    std::fs::read_dir(path(process, what))
        .expect("the process lives")
        .count()
}

fn path(process: u32, what: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{process}/{what}"))
}
