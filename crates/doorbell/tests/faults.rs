//! Every system call of the control path, failing with every error that it could have, in the server's process or in the client's,
//! while they connect, call and close: the outcome is success or a typed error, in time, and neither process keeps anything.
//! Needs `--cfg doorbell_faults`; see `ci/crash.sh`.
#![cfg(doorbell_faults)]

mod support;

use std::{
    error::Error,
    fs,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use doorbell::{Client, Spin, blocking};
use doorbell_shm::sys::faults::{self, Call, Fault};
use doorbell_testkit::{
    Child, PATIENCE, Place, descriptors, eventually, mappings, role, say, setting, wait_for_parent,
};
use support::{log, messages::*, service};

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    match role().as_deref() {
        Some("server") => serve(&setting("path")),
        Some("task") => {
            let runtime = runtime();
            call(|name, limit| runtime.block_on(call_as_task(name, limit)));
        }
        Some("thread") => call(call_as_thread),
        Some("thread whose watch ends") => wait_under_another_watch(),
        Some("thread that is heard") => {
            let heard = Arc::new(Mutex::new(Vec::new()));
            log::listen(hear(&heard));
            call(|name, limit| {
                call_as_thread(name, limit)?;
                match heard.lock().unwrap().pop() {
                    None => Ok(()),
                    Some(said) => Err(said.into()),
                }
            });
        }
        other => panic!("no role {other:?}"),
    }
}

/// Errors by the names of `errno(3)`, with their numbers, the same on every architecture of Linux that we know.
const ERRORS: [(&str, i32); 8] = [
    ("EINTR", 4),
    ("EAGAIN", 11),
    ("ENOMEM", 12),
    ("EPERM", 1),
    ("ENFILE", 23),
    ("EMFILE", 24),
    ("ENOSPC", 28),
    ("ECONNRESET", 104),
];

/// Calls by which something is waited for, heard or told. When one of them fails, an event may be lost: what is waited for does not
/// come, and the error is that of the wait.
const EVENTS: [Call; 11] = [
    Call::Accept,
    Call::Connect,
    Call::EpollWait,
    Call::FutexWaitv,
    Call::FutexWake,
    Call::Poll,
    Call::Recv,
    Call::Recvmsg,
    Call::Send,
    Call::Sendmsg,
    Call::Write,
];

/// Calls without which a server cannot remove its name when it stops. The next one replaces it.
const NAME_STAYS: [Call; 4] = [Call::Openat, Call::Flock, Call::Lstat, Call::Unlink];

/// Calls that few rounds make: a task looks into the control socket only when it is woken for it before the connection has ended.
const RARE: [Call; 1] = [Call::Recv];

/// For what may not come. The other rounds have [`doorbell_testkit::PATIENCE`].
const LIMIT: Duration = Duration::from_millis(300);

#[test]
fn faults_in_the_server_are_survived_or_reported() {
    Pair::start("task").try_all(Victim::Server);
}

#[test]
fn faults_in_a_client_of_tasks_are_survived_or_reported() {
    Pair::start("task").try_all(Victim::Client);
}

#[test]
fn faults_in_a_client_of_threads_are_survived_or_reported() {
    Pair::start("thread").try_all(Victim::Client);
}

/// Without a descriptor for the other process there is no connection: a child of that process could hide its end.
#[test]
fn connection_without_a_descriptor_for_the_other_process_is_not_made() {
    for victim in [Victim::Server, Victim::Client] {
        for errno in [23, 24] {
            // The first time it is asked who the peer is, the second time for its process.
            let round = Pair::start("task").round(victim, &format!("Getsockopt {errno} 2"));
            assert!(round.fired, "{victim:?}: the process is not asked for");
            let error = round.called.expect_err("it has connected all the same");
            let words = ["no descriptor left", &format!("(os error {errno})")];
            assert!(
                words.iter().any(|words| error.contains(words)),
                "{victim:?}: {error}"
            );
        }
    }
}

/// What cannot be done is logged: whoever hears of it may make a client of threads, all of which are watched over together.
#[test]
fn listener_may_connect_when_a_thread_cannot_be_told_to_leave() {
    let mut pair = Pair::start("thread that is heard");
    let (hits, _) = pair.calm(Victim::Client);
    let (_, last) = hits
        .into_iter()
        .find(|(call, _)| *call == Call::Write)
        .expect("it is told by a write");
    // It is the last one of a round, and what comes before it is not always the same.
    let heard = (1..=last + 1).cycle().take(50).any(|hit| {
        let round = pair.round(Victim::Client, &format!("Write 12 {hit}"));
        round.called.is_err_and(|error| error == CONNECTED)
    });
    assert!(heard, "nothing was heard");
}

/// All clients of threads share it. One that has connected meanwhile, or connects afterwards, must not count on it.
#[test]
fn thread_that_watches_over_connections_is_replaced_when_it_cannot_wait() {
    let place = Place::new();
    let name = place.name();
    let settings = [("path", name.as_str())];
    let mut server = Child::start("child_process", "server", &settings);
    server.tell("none");
    server.hear("bound ok");
    let client = Child::start("child_process", "thread whose watch ends", &settings);
    client.hear("waits");
    server.kill();
    let end = client.hear("ended");
    assert!(end.starts_with("Disconnected"), "{end}");
}

fn wait_under_another_watch() {
    arm("EpollWait 12 1");
    let client = blocking::Client::connect(setting("path")).unwrap();
    eventually("the thread that watches has ended", || {
        faults::fired() > 0 && our_threads(std::process::id()) == 0
    });
    faults::disarm();
    let call = client.stream(StuckStream).timeout(PATIENCE);
    let mut items = call.open().unwrap();
    assert_eq!(items.next().unwrap().unwrap(), 1);
    say("waits");
    let end = items.next().unwrap().unwrap_err();
    say(&format!("ended {end:?}"));
}

const CONNECTED: &str = "connected after: cannot end the thread that watches over connections";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Server,
    Client,
}

struct Pair {
    kind: &'static str,
    place: Place,
    server: Child,
    client: Child,
}

/// What came of one round.
#[derive(Debug)]
struct Round {
    fired: bool,
    hits: Vec<(Call, u64)>,
    /// Whether the server could start.
    bound: Result<(), String>,
    called: Result<(), String>,
    /// Whether the next client is served, after a fault of the server.
    called_again: Option<Result<(), String>>,
}

impl Pair {
    fn start(kind: &'static str) -> Self {
        let place = Place::new();
        let name = place.name();
        let settings = [("path", name.as_str())];
        Self {
            server: Child::start("child_process", "server", &settings),
            client: Child::start("child_process", kind, &settings),
            kind,
            place,
        }
    }

    /// Serves an undisturbed client, and returns the calls that the victim made and what both hold at rest.
    fn calm(&mut self, victim: Victim) -> (Vec<(Call, u64)>, [usize; 7]) {
        self.round(victim, "none"); // what a process acquires once and keeps is not to be counted
        let round = self.round(victim, "none");
        assert_eq!((&round.bound, &round.called), (&Ok(()), &Ok(())));
        let (mut held, mut looks) = (self.held(), 0);
        eventually("both processes are at rest", || {
            let now = self.held();
            looks = if now == held { looks + 1 } else { 0 };
            held = now;
            looks == 100
        });
        (round.hits, held)
    }

    /// Each call with each error, the first time that it is made; with one of the errors, or in the long form with all, also later.
    fn try_all(&mut self, victim: Victim) {
        let (hits, mut at_rest) = self.calm(victim);
        let is_long = std::env::var_os("DOORBELL_ALL_FAULTS").is_some();
        let mut rounds = 0;
        for (call, hits) in hits {
            for (error, errno) in ERRORS {
                let times = if error == "ENOMEM" || is_long {
                    hits
                } else {
                    1
                };
                for hit in 1..=times {
                    rounds += self.try_one(victim, call, (error, errno), hit, &mut at_rest);
                }
            }
        }
        println!("{victim:?} of {}: {rounds} rounds", self.kind);
    }

    /// Returns the number of rounds that it took until the fault happened: later calls are not made in every round.
    fn try_one(
        &mut self,
        victim: Victim,
        call: Call,
        (error, errno): (&str, i32),
        hit: u64,
        at_rest: &mut [usize; 7],
    ) -> usize {
        for rounds in 1.. {
            let what = format!("{victim:?}: {call:?} number {hit} with {error}");
            let round = self.round(victim, &format!("{call:?} {errno} {hit}"));
            judge(&round, victim, call, errno, &what);
            if call == Call::Write && victim == Victim::Client && errno != EINTR {
                // A thread that cannot be told to leave stays. The kernel refuses no write of 1 to a counter of our own, so there is
                // no other way to tell it; here the processes begin anew.
                *self = Self::start(self.kind);
                *at_rest = self.calm(victim).1;
            }
            if NAME_STAYS.contains(&call) {
                let _ = fs::remove_file(self.place.socket());
            }
            self.settle(&what, *at_rest);
            if round.fired || hit > 1 || RARE.contains(&call) {
                return rounds;
            }
            assert!(rounds < 100, "{what} does not happen");
        }
        unreachable!("the loop has an end")
    }

    fn settle(&self, what: &str, at_rest: [usize; 7]) {
        let give_up = Instant::now() + PATIENCE;
        while self.held() != at_rest {
            let held = self.held();
            assert!(
                Instant::now() < give_up,
                "{what} leaves {held:?}, not {at_rest:?}"
            );
            std::thread::yield_now();
        }
    }

    /// Serves, connects, calls, closes and stops once, with a fault.
    fn round(&mut self, victim: Victim, fault: &str) -> Round {
        // The other side is told the error, which says how long to wait.
        let errno = fault.split(' ').nth(1).unwrap_or_default();
        let none = format!("none {errno}");
        let (of_server, of_client) = match victim {
            Victim::Server => (fault, none.as_str()),
            Victim::Client => (none.as_str(), fault),
        };
        self.server.tell(of_server);
        let bound = outcome(&self.server.hear("bound"));
        self.client.tell(of_client);
        let called = outcome(&self.client.hear("called"));
        let of_client = self.client.hear("report");
        self.server.tell("has it happened?");
        let happened = self.server.hear("happened") == "true";
        let called_again = (happened && bound.is_ok()).then(|| {
            self.client.tell("none");
            let called = outcome(&self.client.hear("called"));
            self.client.hear("report");
            called
        });
        self.server.tell("stop");
        let of_server = self.server.hear("report");
        let report = match victim {
            Victim::Server => of_server,
            Victim::Client => of_client,
        };
        let (fired, hits) = report.split_once(' ').expect("two parts");
        let hits = hits.split(',').filter(|hits| !hits.is_empty());
        Round {
            fired: fired == "1",
            hits: hits.map(parse_hits).collect(),
            bound,
            called,
            called_again,
        }
    }

    /// Descriptors, mappings and threads of both, and what is in the directory.
    fn held(&self) -> [usize; 7] {
        let [server, client] = [self.server.id(), self.client.id()];
        [
            descriptors(server),
            mappings(server),
            our_threads(server),
            descriptors(client),
            mappings(client),
            our_threads(client),
            fs::read_dir(self.place.directory()).unwrap().count(),
        ]
    }
}

fn judge(round: &Round, victim: Victim, call: Call, errno: i32, what: &str) {
    let outcomes = [&round.bound, &round.called];
    let errors = outcomes
        .into_iter()
        .filter_map(|outcome| outcome.as_ref().err());
    let Some(error) = errors.into_iter().next() else {
        return judge_next(round, call, what);
    };
    assert!(round.fired, "{what} did not happen, and yet: {error}");
    assert!(errno != EINTR, "{what}: {error}");
    let number = format!("(os error {errno})");
    let may_be_lost = EVENTS.contains(&call);
    // A server that has said welcome and then cannot go on closes the connection, which says no more than that. What it says when it is
    // out of descriptors has no number.
    let of_server = ["closed", "(os error", "no descriptor left"];
    let is_of_server =
        victim == Victim::Server && of_server.iter().any(|text| error.contains(text));
    assert!(
        may_be_lost || is_of_server || error.contains(&number),
        "{what}: {error}"
    );
    judge_next(round, call, what);
}

fn judge_next(round: &Round, call: Call, what: &str) {
    // A thread that cannot even wait has left, and with it goes what it served; nobody waits for it in vain.
    let may_have_left = call == Call::EpollWait;
    if let Some(Err(error)) = &round.called_again {
        assert!(may_have_left, "{what}, and the next client: {error}");
        assert!(
            !error.contains("deadline"),
            "{what}, and the next client: {error}"
        );
    }
}

const EINTR: i32 = 4;

fn outcome(said: &str) -> Result<(), String> {
    match said {
        "ok" => Ok(()),
        error => Err(error.to_owned()),
    }
}

fn parse_hits(hits: &str) -> (Call, u64) {
    let (name, count) = hits.split_once('=').expect("a name and a number");
    (
        call_named(name).expect("a call"),
        count.parse().expect("a number"),
    )
}

fn call_named(name: &str) -> Option<Call> {
    let mut calls = Call::ALL.iter().copied();
    calls.find(|call| format!("{call:?}") == name)
}

/// Threads of the library. A runtime keeps some of its own for a while.
fn our_threads(process: u32) -> usize {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let names = threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok());
    names.filter(|name| name.starts_with("doorbell")).count()
}

/// Takes `none`, or the name of a call, a number of an error, and at which hit.
fn arm(fault: &str) {
    let mut words = fault.split(' ');
    let name = words.next().expect("a name");
    let fault = call_named(name).map(|call| Fault {
        call,
        errno: words
            .next()
            .and_then(|errno| errno.parse().ok())
            .expect("a number"),
        hit: words
            .next()
            .and_then(|hit| hit.parse().ok())
            .expect("a number"),
    });
    assert!(fault.is_some() || name == "none", "no call {name}");
    faults::arm(fault.as_slice());
}

fn report() -> String {
    let report = faults::disarm();
    let hits = report.hits.iter().filter(|(_, hits)| *hits > 0);
    let hits: Vec<_> = hits
        .map(|(call, hits)| format!("{call:?}={hits}"))
        .collect();
    format!("report {} {}", report.fired, hits.join(","))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

fn serve(name: &str) {
    let runtime = runtime();
    let _entered = runtime.enter();
    while let Some(fault) = wait_for_parent() {
        arm(&fault);
        let builder = service::awaiting(name)
            .workers(1)
            .spin(Spin::Never)
            .handshake_timeout(limit(&fault));
        let server = runtime.block_on(builder.bind());
        let error = server.as_ref().err().map(|error| error as _);
        say(&format!("bound {}", told(error)));
        assert_eq!(wait_for_parent().as_deref(), Some("has it happened?"));
        say(&format!("happened {}", faults::fired() > 0));
        assert_eq!(wait_for_parent().as_deref(), Some("stop"));
        // A server that cannot wake its threads cannot end them; see above.
        let early = fault.starts_with("Write").then(report);
        drop(server);
        say(&early.unwrap_or_else(report));
    }
}

fn call(mut call: impl FnMut(String, Duration) -> Result<(), Box<dyn Error>>) {
    while let Some(fault) = wait_for_parent() {
        arm(&fault);
        let called = call(setting("path"), limit(&fault));
        let error = called.as_ref().err().map(AsRef::as_ref);
        say(&format!("called {}", told(error)));
        say(&report());
    }
}

/// How long to wait for what may not come. (After an interruption it must.)
fn limit(fault: &str) -> Duration {
    let mut words = fault.split(' ').skip(1);
    match words.next() {
        Some(errno) if !errno.is_empty() && errno != EINTR.to_string() => LIMIT,
        _ => PATIENCE,
    }
}

async fn call_as_task(name: String, limit: Duration) -> Result<(), Box<dyn Error>> {
    let builder = Client::builder(name)
        .spin(Spin::Never)
        .handshake_timeout(limit)
        .reconnect_timeout(limit);
    let client = builder.connect().await?;
    assert_eq!(client.call(Add(1, 2)).timeout(limit).await?, 3);
    client.close();
    Ok(())
}

fn call_as_thread(name: String, limit: Duration) -> Result<(), Box<dyn Error>> {
    let builder = blocking::Client::builder(name)
        .spin(Spin::Never)
        .handshake_timeout(limit)
        .reconnect_timeout(limit);
    let client = builder.connect()?;
    assert_eq!(client.call(Add(1, 2)).timeout(limit).wait()?, 3);
    client.close();
    Ok(())
}

/// Connects whenever something is logged that is an error.
fn hear(heard: &Arc<Mutex<Vec<String>>>) -> impl Fn(&str) + Send + Sync + 'static {
    let heard = Arc::clone(heard);
    move |said| {
        if said.starts_with("cannot") {
            let client = blocking::Client::connect(setting("path")).unwrap();
            assert_eq!(client.call(Add(1, 2)).wait().unwrap(), 3);
            heard
                .lock()
                .unwrap()
                .push(format!("connected after: {said}"));
        }
    }
}

/// An error with all its causes, in one line.
fn told(error: Option<&dyn Error>) -> String {
    let Some(error) = error else {
        return "ok".to_owned();
    };
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    let told: Vec<_> = causes
        .map(|error| error.to_string().replace('\n', " "))
        .collect();
    told.join(": ")
}
