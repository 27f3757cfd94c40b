//! How long who waits stays awake.

use std::time::{Duration, Instant};

use doorbell::{Context, Message, MessageType, Spin, Status, blocking};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Next(u32);
impl Message for Next {
    const TYPE: MessageType = MessageType::new(1);
    type Reply = u32;
}

/// The only connection is quiet between two calls, for longer than one that is left to its bell while others are busy.
#[test]
fn worker_that_always_spins_is_awake_for_a_call_after_a_short_pause() {
    let (_directory, server, client) = connected(Spin::Always);
    let give_up = Instant::now() + PATIENCE;
    loop {
        let slept = sleeps_between_calls(&server, &client);
        if slept < CALLS / 2 {
            return; // most pauses have been spun through; on a busy machine some batches are not
        }
        assert!(
            Instant::now() < give_up,
            "{slept} sleeps in {CALLS} pauses of {PAUSE:?}"
        );
    }
}

#[test]
fn worker_that_never_spins_sleeps_in_every_pause() {
    let (_directory, server, client) = connected(Spin::Never);
    let give_up = Instant::now() + PATIENCE;
    while sleeps_between_calls(&server, &client) < CALLS / 2 {
        assert!(Instant::now() < give_up, "it stays awake");
    }
}

/// Makes some calls with pauses, and returns how often the worker has slept meanwhile.
fn sleeps_between_calls(server: &blocking::Server, client: &blocking::Client) -> u64 {
    let before = server.stats().messages.sleeps;
    for number in 0..CALLS {
        let called = client.call(Next(number as u32)).timeout(PATIENCE).wait();
        assert_eq!(called.unwrap(), number as u32 + 1);
        let goes_on = Instant::now() + PAUSE;
        while Instant::now() < goes_on {
            std::thread::yield_now();
        }
    }
    server.stats().messages.sleeps - before
}

fn connected(spin: Spin) -> (tempfile::TempDir, blocking::Server, blocking::Client) {
    let directory = tempfile::tempdir().unwrap();
    let name = directory.path().join("server.sock").display().to_string();
    let server = blocking::Server::builder(&name)
        .spin(spin)
        .on(|_: Context, request: Next| Ok::<_, Status>(request.0 + 1))
        .bind()
        .unwrap();
    let client = blocking::Client::builder(&name)
        .spin(spin)
        .connect()
        .unwrap();
    (directory, server, client)
}

const CALLS: u64 = 50;

/// Well below the millisecond of [`Spin::Always`].
const PAUSE: Duration = Duration::from_micros(600);

const PATIENCE: Duration = Duration::from_secs(20);
