//! Helpers for the tests of Doorbell: a place for a server, processes to play the other side, what `/proc` says of them, and
//! peers that say what no proper peer would.
//!
//! Every wait ends at [`PATIENCE`] with a panic that names what was waited for.
#![forbid(unsafe_code)]

mod bell;
pub mod by_hand;
mod child;
mod place;
mod proc;
mod raw_client;
mod raw_server;

use std::time::{Duration, Instant};

pub use child::{Child, role, say, setting, wait_for_parent};
pub use place::Place;
pub use proc::{
    Scheduled, cpu_time, cpus_of_this_thread, descriptors, handler_threads, is_asleep,
    kill_process, limit_descriptors, mappings, memory_bytes, prefer_threads, resident_bytes,
    scheduled, second_user, stop_process, threads,
};
pub use raw_client::{RawClient, RawControl};
pub use raw_server::RawServer;

/// How long a test waits for anything before it fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `holds`, for facts that nothing announces, such as the number of a process's descriptors.
///
/// # Panics
///
/// If it does not within [`PATIENCE`]; the message has `what`.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < give_up, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(1)); // between looks; the deadline above decides
    }
}
