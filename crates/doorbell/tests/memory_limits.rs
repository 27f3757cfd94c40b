//! Processes that may have less memory than they ask for: set-up fails with an error that says so, and who uses more than it has is
//! ended by the kernel as with any memory (`SIGKILL`), not by an access that faults (`SIGBUS`). The other side goes on.

mod support;

use std::{fs, os::unix::process::ExitStatusExt, path::PathBuf, process::Command};

use doorbell::{ConnectError, RefuseReason, blocking::Client};
use doorbell_testkit::{Child, Place, mappings, role, say, setting, wait_for_parent};
use support::{Host, messages::*};

#[test]
#[ignore = "the body of the child processes"]
fn child_process() {
    match role().as_deref() {
        Some("wishes too much") => wish_too_much(&setting("path")),
        Some("uses too much") => use_too_much(&setting("path")),
        _ => support::roles::run(),
    }
}

/// The server's rings, unless the client wishes for others. One region fits into the addresses of a limited process, but not two.
const HUGE_RINGS: (&str, &str) = ("ring_capacity_bytes", "1073741824");

/// Starts a child with a limit on its addresses (`RLIMIT_AS`), of which a runtime's threads alone reserve some hundred megabytes.
fn start_limited(role: &str, settings: &[(&str, &str)]) -> Child {
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -v 1800000; exec \"$0\" \"$@\""]);
    Child::start_through(shell, "child_process", role, settings)
}

fn connect_with_small_rings(name: &str) -> Client {
    let builder = Client::builder(name).ring_capacity_bytes(1 << 16);
    builder.connect().expect("there is room for these")
}

fn wish_too_much(name: &str) {
    let error = Client::connect(name).unwrap_err();
    let ConnectError::System { source, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(source.kind(), std::io::ErrorKind::OutOfMemory);
    assert_eq!(mappings(std::process::id()), 0, "nothing stays mapped");
    let modest = connect_with_small_rings(name);
    assert_eq!(modest.call(Add(1, 2)).wait().unwrap(), 3);
    say("done");
}

#[test]
fn client_without_addresses_for_the_rings_says_so_and_can_ask_for_less() {
    let host = Host::start("server", &[HUGE_RINGS]);
    let client = start_limited("wishes too much", &[("path", &host.name())]);
    client.hear("done");
    client.finish();
}

#[test]
fn server_without_addresses_for_the_rings_refuses_and_serves_others() {
    let place = Place::new();
    let server = start_limited("server", &[("path", &place.name()), HUGE_RINGS]);
    server.hear("READY");
    let error = Client::connect(place.name()).unwrap_err();
    let ConnectError::Refused { reason, text } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(*reason, RefuseReason::Resources);
    assert!(text.contains("(os error 12)"), "{text}");
    assert_eq!(mappings(server.id()), 0, "nothing stays mapped");
    let modest = connect_with_small_rings(&place.name());
    assert_eq!(modest.call(Add(1, 2)).wait().unwrap(), 3);
}

/// A control group of our own, with so much memory; removed when dropped.
struct Group(PathBuf);

impl Group {
    /// Returns `None`, and says why, on a system where that cannot be had.
    fn new(limit_bytes: u64) -> Option<Self> {
        let path = PathBuf::from(format!(
            "/sys/fs/cgroup/memory/doorbell-{}",
            std::process::id()
        ));
        let made = fs::create_dir(&path)
            .map(|()| Self(path))
            .and_then(|group| {
                fs::write(
                    group.0.join("memory.limit_in_bytes"),
                    limit_bytes.to_string(),
                )?;
                Ok(group)
            });
        made.inspect_err(|error| {
            println!("SKIPPED: no control group for memory (version 1): {error}")
        })
        .ok()
    }

    fn start(&self, role: &str, settings: &[(&str, &str)]) -> Child {
        let mut shell = Command::new("sh");
        let enter = format!(
            "echo $$ > {}/cgroup.procs; exec \"$0\" \"$@\"",
            self.0.display()
        );
        shell.args(["-c", &enter]);
        Child::start_through(shell, "child_process", role, settings)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0); // empty by now, or the test has failed anyway
    }
}

fn use_too_much(name: &str) {
    let client = Client::connect(name).unwrap();
    assert_eq!(client.call(Add(1, 2)).wait().unwrap(), 3);
    say("connected");
    wait_for_parent();
    // More than the group has.
    let _ = client.call(Echo(vec![1; 256 << 20].into())).wait();
}

#[test]
fn client_that_uses_more_than_its_group_has_is_killed_and_the_server_goes_on() {
    let Some(group) = Group::new(96 << 20) else {
        return;
    };
    let host = Host::start("server", &[("max_message_bytes", "268435456"), HUGE_RINGS]);
    // Rings of 1 GiB in a group of 96 MiB: memory follows use.
    let mut client = group.start("uses too much", &[("path", &host.name())]);
    client.hear("connected");
    let witness = connect_with_small_rings(&host.name());
    client.tell("go on");
    let status = client.wait();
    assert_eq!(status.signal(), Some(SIGKILL), "{status}");
    assert_eq!(witness.call(Add(1, 2)).wait().unwrap(), 3);
    doorbell_testkit::eventually("the server has let go of it", || {
        mappings(host.child.id()) == 3 // of the witness
    });
}

const SIGKILL: i32 = 9;
