//! `doorbell serve --echo` and `doorbell ping`, as a user starts them.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// Returns the command with names kept in a directory of the test.
fn doorbell(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorbell"));
    command.env("DOORBELL_RUNTIME_DIR", directory.join("run"));
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A server that ends with the test.
struct EchoServer(Child);

impl EchoServer {
    fn start(directory: &Path, name: &str) -> Self {
        let mut child = doorbell(directory)
            .args(["serve", "--echo", name])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert!(line.starts_with("serving"), "{line:?}");
        Self(child)
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

#[test]
fn ping_times_round_trips_to_an_echo_server() {
    let directory = tempfile::tempdir().unwrap();
    let _server = EchoServer::start(directory.path(), "echo");
    let output = doorbell(directory.path())
        .args(["ping", "echo", "--count", "3", "--interval", "1"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("ping 3:") && text.contains("3 pings: least"),
        "{text}"
    );
}

#[test]
fn ping_of_a_name_that_nobody_serves_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let output = doorbell(directory.path())
        .args(["ping", "nobody"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = stderr(&output);
    assert!(
        text.contains("nobody") && text.contains("start it, or check the name"),
        "{text}"
    );
}

#[test]
fn ping_of_something_that_is_not_a_name_says_what_a_name_is() {
    let directory = tempfile::tempdir().unwrap();
    let output = doorbell(directory.path())
        .args(["ping", "not a name"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(
        stderr(&output).contains("is not a service name"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_second_server_of_the_same_name_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let _server = EchoServer::start(directory.path(), "taken");
    let output = doorbell(directory.path())
        .args(["serve", "--echo", "taken"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(stderr(&output).contains("taken"), "{}", stderr(&output));
}

#[test]
fn serve_without_anything_to_serve_explains_the_option() {
    let directory = tempfile::tempdir().unwrap();
    let output = doorbell(directory.path())
        .args(["serve", "name"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(stderr(&output).contains("--echo"), "{}", stderr(&output));
}
