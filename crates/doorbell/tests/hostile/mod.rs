//! Attacks as rows of a table.
//!
//! The victim is a server in a process of its own, the enemy a process that shares no code with it (`doorbell_testkit::by_hand`), and
//! the witness a client in a third one, which calls all the time. After every attack the enemy must have been told what was wrong, if it
//! can be told; the witness must have gone on without an error; a fresh client must be served; and the victim must hold what it held
//! before: descriptors, mappings, threads, tasks, connections. It must not have panicked.
//!
//! `DOORBELL_HOSTILE_ONLY` chooses the rows whose name contains it, `DOORBELL_HOSTILE_SCALE` multiplies the storms, and
//! `DOORBELL_HOSTILE_SECONDS` measures what the witness feels of each attack: see [`calm`].
#![allow(dead_code, reason = "every test uses a part of it")]

pub(crate) mod account;
pub(crate) mod calm;
pub(crate) mod lies;
pub(crate) mod trap;
pub(crate) mod victim;
pub(crate) mod witness;

use std::path::{Path, PathBuf};

use doorbell::{blocking, server};
use doorbell_testkit::{Child, PATIENCE, Place, eventually, role, say, setting, wait_for_parent};

use crate::support::messages::Add;
use victim::Victim;
use witness::Witness;

/// A row.
pub(crate) struct Attack {
    name: &'static str,
    /// Words that the enemy's account of it must have.
    sees: &'static str,
    /// Done in the enemy's process, to the server at that path; returns its account.
    run: fn(&Path) -> String,
}

pub(crate) const fn attack(
    name: &'static str,
    sees: &'static str,
    run: fn(&Path) -> String,
) -> Attack {
    Attack { name, sees, run }
}

impl Attack {
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }
}

/// Lets a server suffer all attacks, one after the other.
pub(crate) fn suffer(attacks: &[Attack], settings: &[(&str, &str)]) {
    let mut scene = Scene::start(settings);
    let chosen = attacks.iter().filter(|attack| is_chosen(attack.name));
    match calm::length() {
        Some(length) => calm::measure(&mut scene, chosen, length),
        None => chosen.for_each(|attack| scene.suffer(attack)),
    }
    scene.end();
}

/// The same for a server of threads.
pub(crate) fn suffer_in_threads(attacks: &[Attack]) {
    suffer(attacks, &[("server", "of threads")]);
}

/// The body of the child processes.
pub(crate) fn child(tables: &[&'static [Attack]]) {
    child_with(tables, |builder| builder);
}

/// As [`child`], with handlers that only these tables need.
pub(crate) fn child_with(
    tables: &[&'static [Attack]],
    more: fn(server::Builder) -> server::Builder,
) {
    calm::stay_away();
    match role().as_deref() {
        Some("victim") => victim::serve(more),
        Some("victim of threads") => victim::serve_of_threads(),
        Some("enemy") => {
            let account = (row(tables).run)(&path());
            say(&format!("SAW {}", account.replace('\n', " ")));
            while wait_for_parent().is_some() {}
        }
        Some("enemy that goes on") => calm::go_on(row(tables), &path()),
        Some("busy") => calm::keep_busy(),
        _ => {}
    }
}

/// In a child: the attack that it is to make.
fn row(tables: &[&'static [Attack]]) -> &'static Attack {
    let name = setting("attack");
    let mut rows = tables.iter().copied().flatten();
    rows.find(|attack| attack.name == name)
        .expect("a row of the table")
}

/// In a child: the path of the server.
pub(crate) fn path() -> PathBuf {
    PathBuf::from(setting("path"))
}

pub(crate) fn is_chosen(name: &str) -> bool {
    std::env::var("DOORBELL_HOSTILE_ONLY").map_or(true, |only| name.contains(&only))
}

/// So many, times what the environment asks for.
pub(crate) fn scaled(count: usize) -> usize {
    let scale = std::env::var("DOORBELL_HOSTILE_SCALE");
    count * scale.map_or(1, |scale| scale.parse().expect("a number"))
}

/// A victim and a witness.
pub(crate) struct Scene {
    pub(crate) place: Place,
    pub(crate) victim: Victim,
    pub(crate) witness: Witness,
}

impl Scene {
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        let place = Place::new();
        let victim = Victim::start(&place, settings);
        let witness = Witness::start(&place.name());
        let scene = Self {
            place,
            victim,
            witness,
        };
        scene.serves_a_fresh_client(); // what a server makes for its first clients, it has now
        scene
    }

    /// Starts the enemy and waits for its account.
    pub(crate) fn attack(&self, name: &str) -> (Child, String) {
        let enemy = self.child("enemy", name);
        let saw = enemy.hear("SAW");
        (enemy, saw)
    }

    fn child(&self, role: &str, attack: &str) -> Child {
        let settings = [("path", &*self.place.name()), ("attack", attack)];
        Child::start("child_process", role, &settings)
    }

    fn suffer(&mut self, attack: &Attack) {
        let before = self.victim.settle();
        let since = self.witness.mark();
        let (enemy, saw) = self.attack(attack.name);
        assert!(
            saw.contains(attack.sees),
            "{}: the enemy saw {saw:?}, not {:?}",
            attack.name,
            attack.sees
        );
        self.witness.goes_on(attack.name);
        enemy.finish();
        self.serves_a_fresh_client();
        self.victim.gives_back(before, attack.name);
        println!("{:48} {} | {saw}", attack.name, self.witness.since(since));
    }

    /// A client that comes now is served, at the latest when what holds it up has passed.
    pub(crate) fn serves_a_fresh_client(&self) {
        let mut client = None;
        eventually("a fresh client is let in", || {
            match blocking::Client::connect(self.place.name()) {
                Ok(connected) => client = Some(connected),
                Err(error) => assert!(error.is_retryable(), "a fresh client: {error}"),
            }
            client.is_some()
        });
        let client = client.expect("just seen");
        let sum = client.call(Add(1, 2)).timeout(PATIENCE).wait();
        assert_eq!(sum.expect("a fresh client is served"), 3);
    }

    pub(crate) fn end(mut self) {
        self.witness.leave();
        println!("{}", self.victim.memory());
    }
}
