//! Servers that lie, as rows of a table.
//!
//! The victim is a process with its clients, the enemy a server in a process of its own, and the witness a client in the victim's process
//! of an honest server in a third one. Every client that is trapped must get an error of the right type that says what was wrong, and
//! afterwards the victim must hold what it held before.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use doorbell::{Client, ConnectError, blocking};
use doorbell_testkit::{
    Child, PATIENCE, Place,
    by_hand::{HandServer, Handed},
    descriptors, mappings, say, setting, threads,
};

use super::{Scene, is_chosen, path};

/// A row.
pub(crate) struct Trap {
    name: &'static str,
    /// The variant of the error, and words that its text must have; or `Connected`.
    gives: &'static str,
    words: &'static str,
    /// Done in the enemy's process, for every client.
    serve: fn(&HandServer),
}

pub(crate) const fn trap(
    name: &'static str,
    gives: &'static str,
    words: &'static str,
    serve: fn(&HandServer),
) -> Trap {
    Trap {
        name,
        gives,
        words,
        serve,
    }
}

/// Serves one client, after something about the answer was changed.
pub(crate) fn change(server: &HandServer, change: impl FnOnce(&mut Handed)) {
    let mut handed = server.greet();
    change(&mut handed);
    handed.send();
    handed.socket.wait_for_end(); // what came with the answer lives as long as the client looks at it
}

/// Has a process walk into all traps: one of its own, because others here open descriptors meanwhile.
pub(crate) fn walk() {
    let victim = Child::start("child_process", "victim of a server", &[]);
    loop {
        let said = victim.hear("");
        if said == "DONE" {
            return victim.finish();
        }
        println!("{said}");
    }
}

/// The body of the victim's process: walks into all traps, one after the other.
pub(crate) fn walk_into(tables: &[&[Trap]]) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(1)
        .thread_keep_alive(Duration::from_secs(3600))
        .enable_all()
        .build()
        .unwrap();
    let scene = Scene::start(&[]);
    // What a process makes for its first clients, it has now.
    let honest = scene.place.name();
    runtime.block_on(Client::connect(&honest)).unwrap().close();
    drop(blocking::Client::connect(&honest).unwrap());
    for trap in tables
        .iter()
        .copied()
        .flatten()
        .filter(|trap| is_chosen(trap.name))
    {
        trap.spring(&scene, &runtime);
    }
    scene.end();
    say("DONE");
}

impl Trap {
    fn spring(&self, scene: &Scene, runtime: &tokio::runtime::Runtime) {
        let before = settle();
        let since = scene.witness.mark();
        let place = Place::new();
        let enemy = self.start(&place);
        let name = place.name();
        let builder = Client::builder(&name).handshake_timeout(LONG_ENOUGH);
        let of_task = runtime.block_on(builder.connect()).map(drop);
        let builder = blocking::Client::builder(&name).handshake_timeout(LONG_ENOUGH);
        let of_thread = builder.connect().map(drop);
        for result in [&of_task, &of_thread] {
            let account = account(result);
            assert!(
                account.starts_with(self.gives) && account.contains(self.words),
                "{}: it gave {account:?}, not {} with {:?}",
                self.name,
                self.gives,
                self.words
            );
        }
        drop(enemy);
        scene.witness.goes_on(self.name);
        assert_eq!(
            settle_to(before),
            before,
            "{}: we hold something else than before",
            self.name
        );
        say(&format!(
            "{:48} {} | {}",
            self.name,
            scene.witness.since(since),
            account(&of_task)
        ));
    }

    fn start(&self, place: &Place) -> Child {
        let enemy = Child::start(
            "child_process",
            "trap",
            &[("path", &place.name()), ("trap", self.name)],
        );
        enemy.hear("READY");
        enemy
    }
}

/// The body of the enemy's process.
pub(crate) fn serve(tables: &[&[Trap]]) {
    let name = setting("trap");
    let row = tables
        .iter()
        .copied()
        .flatten()
        .find(|trap| trap.name == name);
    let row = row.expect("a row of the table");
    serve_at(&path(), row.serve);
}

fn serve_at(path: &Path, serve: fn(&HandServer)) {
    let server = HandServer::listen(path);
    say("READY");
    loop {
        serve(&server);
    }
}

/// The variant of an error and its words.
pub(crate) fn account(result: &Result<(), ConnectError>) -> String {
    match result {
        Ok(()) => "Connected".to_owned(),
        Err(error) => {
            let debug = format!("{error:?}");
            let variant = debug.split([' ', '(']).next().unwrap_or_default();
            format!("{variant}: {error}")
        }
    }
}

/// Descriptors, mappings and threads of this process.
pub(crate) type Held = [usize; 3];

fn held() -> Held {
    let id = std::process::id();
    [descriptors(id), mappings(id), threads(id)]
}

/// What this process holds once that has stopped changing and only the witness is connected.
pub(crate) fn settle() -> Held {
    let give_up = Instant::now() + PATIENCE;
    let (mut last, mut same) = (held(), 0);
    while same < 20 || last[1] != MAPPINGS_OF_THE_WITNESS {
        assert!(Instant::now() < give_up, "it does not settle: {last:?}");
        let now = held();
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    last
}

pub(crate) fn settle_to(before: Held) -> Held {
    let give_up = Instant::now() + PATIENCE;
    let mut now = held();
    while now != before && Instant::now() < give_up {
        now = held();
    }
    now
}

/// Its two regions.
const MAPPINGS_OF_THE_WITNESS: usize = 3;

/// How long a client waits for an answer here.
const LONG_ENOUGH: Duration = Duration::from_millis(700);
