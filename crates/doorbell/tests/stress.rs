//! Everything at once, for a few seconds: every kind of call, cancelled, late or given up half way, and loans, by tasks and by threads,
//! over rings that are full most of the time.
//!
//! A server and its clients, each in a process of its own. Whatever is started must end in one way, in time; what arrives must be
//! what was sent, in order; and afterwards both processes hold what they held before. `DOORBELL_STRESS_SECONDS` makes it last longer,
//! `DOORBELL_STRESS_SEED` repeats the choices of an earlier run, though not its timing.

mod support;
mod under_stress;

use doorbell_testkit::{
    Child, Place, descriptors, eventually, handler_threads, mappings, role, second_user, threads,
};

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    match role().as_deref() {
        Some("stress-server") => under_stress::server::run(),
        Some("stress-clients") => under_stress::run_clients(),
        _ => support::roles::run(),
    }
}

fn stress(server: &str, spin: &str) {
    stress_of(None, server, spin);
}

/// `user` is who runs the clients, if it is another one.
fn stress_of(user: Option<u32>, server: &str, spin: &str) {
    let place = Place::new();
    let name = place.name();
    let whose = if user.is_some() {
        "of another user"
    } else {
        "own"
    };
    let settings = [
        ("path", name.as_str()),
        ("kind", server),
        ("spin", spin),
        ("clients", whose),
    ];
    let host = Child::start("child_process", "stress-server", &settings);
    host.hear("READY");
    let mut clients = match user {
        None => Child::start("child_process", "stress-clients", &settings),
        Some(user) => Child::start_as(user, &place, "child_process", "stress-clients", &settings),
    };
    clients.hear("WARM");
    let held = |child: &Child| {
        let process = child.id();
        (descriptors(process), mappings(process), threads(process))
    };
    eventually("the server is done with the first clients", || {
        mappings(host.id()) == 0 && handler_threads(host.id()) == 0
    });
    let before = (held(&host), held(&clients));
    clients.tell("GO");
    while clients.hear("") != "DONE" {}
    eventually("both processes give everything back", || {
        (held(&host), held(&clients)) == before
    });
    clients.finish();
    host.finish();
}

#[test]
fn everything_at_once_with_a_server_that_never_spins() {
    stress("tasks", "never");
}

#[test]
fn everything_at_once_with_a_server_that_spins_while_it_pays() {
    stress("tasks", "adaptive");
}

#[test]
fn everything_at_once_with_a_server_that_always_spins() {
    stress("tasks", "always");
}

#[test]
fn everything_at_once_with_a_server_of_threads() {
    stress("threads", "never");
}

/// Between two users nothing is given back after a while, and so nobody is woken for that who has not been woken for something else.
#[test]
fn everything_at_once_with_clients_of_a_second_user() {
    let Some(user) = second_user() else { return };
    stress_of(Some(user), "tasks", "adaptive");
    stress_of(Some(user), "threads", "never");
}
