//! SIGKILL of clients, of servers and of both at random points: nothing lost, torn, executed twice or leaked, and nobody hangs.
//!
//! `DOORBELL_DEATH_KILLS` sets how many clients die, 20,000 in the long form; of servers it is a fifth, of pairs a tenth.
//! `DOORBELL_DEATH_SEED` plays a run again as far as the processes allow.

mod death;
#[path = "support/log.rs"]
mod log;

use std::sync::{Mutex, MutexGuard, PoisonError};

use death::{
    Random,
    clients::Clients,
    counts::Counts,
    process::{be_the_victim, runtime},
    resources::Resources,
    servers::Servers,
    serving::{self, Log},
    together::Together,
};

/// The other process of the tests below.
#[test]
fn victim() {
    be_the_victim();
}

#[test]
fn server_of_tasks_outlives_its_clients() {
    let _alone = alone();
    let runtime = runtime();
    let log = Log::in_memory();
    let (directory, socket) = place();
    let server = runtime.block_on(serving::bind(&socket, &log)).unwrap();
    Clients {
        log: &log,
        directory: directory.path(),
        socket: &socket,
        run: 1,
        connections: &|| server.stats().connections,
    }
    .die(seed() ^ 1, kills() / 2);
}

#[test]
fn server_of_threads_outlives_its_clients() {
    let _alone = alone();
    let log = Log::in_memory();
    let (directory, socket) = place();
    let server = serving::bind_blocking(&socket, &log).unwrap();
    Clients {
        log: &log,
        directory: directory.path(),
        socket: &socket,
        run: 2,
        connections: &|| server.stats().connections,
    }
    .die(seed() ^ 2, kills() / 2);
}

#[test]
fn clients_of_both_kinds_outlive_their_server() {
    let _alone = alone();
    let (seed, kills) = (seed(), kills() / 5);
    let (directory, socket) = place();
    let runtime = runtime();
    let mut servers = Servers::new(&runtime, &socket);
    servers.run_once(&mut Random(seed), 0); // threads of the runtime start with the first use
    servers.counts = Counts::default();
    let start = Resources::settle_at_rest(directory.path());
    let mut random = Random(seed);
    for cycle in 1..=kills {
        servers.die(&mut random, cycle);
        servers.counts.end_of(cycle, kills);
    }
    servers.run_once(&mut random, kills + 1); // the path works still
    let held = Resources::settle(directory.path(), start);
    servers.counts.judge("servers", seed, (start, held));
}

#[test]
fn both_sides_may_die_together() {
    let _alone = alone();
    let (seed, kills) = (seed() ^ 3, kills() / 10);
    let (directory, socket) = place();
    let (pairs, mut random) = (Together { socket: &socket }, Random(seed));
    // One leaves the socket for the next, unless it dies before it has made it.
    let leaves_a_socket = |cycle: &u64| {
        pairs.die(&mut random, *cycle, &mut Counts::default());
        std::fs::read_dir(&directory).unwrap().count() > 0
    };
    let before = (0..).find(leaves_a_socket).expect("it comes up in the end");
    let start = Resources::settle_at_rest(directory.path());
    let mut counts = Counts::default();
    for cycle in 1..=kills {
        pairs.die(&mut random, before + cycle, &mut counts);
        counts.end_of(cycle, kills);
    }
    let held = Resources::settle(directory.path(), start);
    counts.judge("pairs", seed, (start, held));
    drop(serving::bind_blocking(&socket, &Log::in_memory()).unwrap());
    assert_eq!(
        std::fs::read_dir(&directory).unwrap().count(),
        0,
        "files are left"
    );
}

/// The places lie between the steps of a connection; see `doorbell_shm::failpoint`.
#[cfg(doorbell_failpoints)]
#[test]
fn each_step_of_either_side_may_be_the_last() {
    let _alone = alone();
    let (directory, _) = place();
    let began = std::time::Instant::now();
    let mut walk = death::walk::Walk {
        runtime: &runtime(),
        directory: directory.path(),
        seed: seed(),
        visits: variable("DOORBELL_DEATH_VISITS").unwrap_or(2),
        judged: Default::default(),
        deaths: 0,
    };
    walk.clients();
    walk.servers();
    println!(
        "seed {:#x}: {} deaths at {} places in {:.1?}: {:?}",
        walk.seed,
        walk.deaths,
        doorbell_shm::failpoint::PLACES.len(),
        began.elapsed(),
        walk.judged
    );
}

fn place() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("server.sock").display().to_string();
    (directory, socket)
}

/// What one test holds must not be taken for what another one leaks.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    death::torn::watch();
    death::torn::take(); // what the last one found
    alone
}

fn seed() -> u64 {
    variable("DOORBELL_DEATH_SEED").unwrap_or_else(|| u64::from(std::process::id()) << 8)
}

/// Clients that are killed. Servers: a fifth of it, pairs: a tenth.
fn kills() -> u64 {
    variable("DOORBELL_DEATH_KILLS").unwrap_or(1000)
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|value| value.parse().expect("a number"))
}
