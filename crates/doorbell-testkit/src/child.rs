//! A second process: the test's own executable, run again with one of its tests as the body.
//!
//! The parent gives a role and settings by environment variables, and lines on standard input; the child answers with lines on
//! standard output, marked so that the test harness's own output does not disturb. A child that is not told otherwise ends with its
//! parent, because its standard input ends then.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{ChildStdin, Command, Stdio},
    sync::mpsc,
};

use crate::{PATIENCE, Place};

/// A running child. Killed when dropped.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    input: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
}

impl Child {
    /// Starts the test called `body` of this executable in a new process, with a role and settings that it can ask for.
    ///
    /// # Panics
    ///
    /// If no process can be started.
    pub fn start(body: &str, role: &str, settings: &[(&str, &str)]) -> Self {
        let executable = std::env::current_exe().expect("a test has an executable");
        Self::spawn(Command::new(executable), body, role, settings)
    }

    /// As [`start`](Self::start), through `command`, which is given the executable's path and arguments.
    ///
    /// # Panics
    ///
    /// If no process can be started.
    pub fn start_through(
        command: Command,
        body: &str,
        role: &str,
        settings: &[(&str, &str)],
    ) -> Self {
        let mut command = command;
        command.arg(std::env::current_exe().expect("a test has an executable"));
        Self::spawn(command, body, role, settings)
    }

    /// As [`start`](Self::start), as the user and group with this number and without other groups. `place` is opened to that user, who
    /// runs a copy of the executable in it if the executable itself is out of reach.
    ///
    /// # Panics
    ///
    /// If no process can be started, for example because we are not root.
    pub fn start_as(
        user: u32,
        place: &Place,
        body: &str,
        role: &str,
        settings: &[(&str, &str)],
    ) -> Self {
        place.open_to_others();
        let executable = std::env::current_exe().expect("a test has an executable");
        let start = |executable: &Path| {
            let mut command = Command::new(executable);
            // The working directory may be out of reach, too.
            command.uid(user).gid(user).current_dir(place.directory());
            Self::try_spawn(command, body, role, settings)
        };
        start(&executable)
            .or_else(|_| {
                let copy = place.directory().join("executable");
                std::fs::copy(&executable, &copy)?;
                start(&copy)
            })
            .expect("a second process as another user")
    }

    fn spawn(command: Command, body: &str, role: &str, settings: &[(&str, &str)]) -> Self {
        Self::try_spawn(command, body, role, settings).expect("a second process")
    }

    fn try_spawn(
        mut command: Command,
        body: &str,
        role: &str,
        settings: &[(&str, &str)],
    ) -> std::io::Result<Self> {
        command.args([
            body,
            "--exact",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ]);
        command.env(ROLE, role);
        for (name, value) in settings {
            command.env(variable(name), value);
        }
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = spawned?;
        let output = BufReader::new(process.stdout.take().expect("piped"));
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some(said) = line.strip_prefix(MARK)
                    && sender.send(said.to_owned()).is_err()
                {
                    return;
                }
            }
        });
        Ok(Self {
            input: process.stdin.take(),
            process,
            lines,
        })
    }

    /// Returns the child's process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Waits for the child to say `word`, and returns what it said after it.
    ///
    /// # Panics
    ///
    /// If it says something else, nothing in time, or ends.
    pub fn hear(&self, word: &str) -> String {
        let line = self.lines.recv_timeout(PATIENCE);
        let line = line.unwrap_or_else(|error| panic!("the child never said {word}: {error}"));
        let rest = line
            .strip_prefix(word)
            .unwrap_or_else(|| panic!("the child said {line:?}, not {word}"));
        rest.trim_start().to_owned()
    }

    /// Writes a line to the child.
    ///
    /// # Panics
    ///
    /// If the child has ended.
    pub fn tell(&mut self, line: &str) {
        let input = self.input.as_mut().expect("the input is open");
        writeln!(input, "{line}")
            .and_then(|()| input.flush())
            .expect("the child reads");
    }

    /// Kills the child as `kill -9` does and waits until it is gone.
    ///
    /// # Panics
    ///
    /// If that is not possible.
    pub fn kill(&mut self) {
        self.process.kill().expect("our own child");
        self.process.wait().expect("our own child");
    }

    /// Waits for the child's end, and returns how it ended.
    ///
    /// # Panics
    ///
    /// If it does not end in time.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        crate::eventually("the child ends", || {
            self.process.try_wait().expect("our own child").is_some()
        });
        self.process.wait().expect("our own child")
    }

    /// Ends the child's input and waits for its end.
    ///
    /// # Panics
    ///
    /// If it failed.
    pub fn finish(mut self) {
        self.input = None;
        let status = self.wait();
        assert!(status.success(), "the child failed: {status}");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it may have ended
        let _ = self.process.wait();
    }
}

/// In a child: returns its role; `None` in a process that is no child.
pub fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// In a child: returns a setting that the parent has given.
///
/// # Panics
///
/// If it has not.
pub fn setting(name: &str) -> String {
    std::env::var(variable(name)).unwrap_or_else(|_| panic!("no setting {name}"))
}

/// In a child: says a line to the parent.
pub fn say(line: &str) {
    // The harness leaves its own line unfinished.
    println!("\n{MARK}{line}");
}

/// In a child: waits for the next line from the parent; `None` once the parent has no more to say or is gone.
pub fn wait_for_parent() -> Option<String> {
    let mut line = String::new();
    let count = std::io::stdin().read_line(&mut line).unwrap_or(0);
    (count > 0).then(|| line.trim_end().to_owned())
}

fn variable(name: &str) -> String {
    format!("DOORBELL_TEST_{}", name.to_uppercase())
}

const ROLE: &str = "DOORBELL_TEST_ROLE";
const MARK: &str = "child: ";
