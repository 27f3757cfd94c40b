//! The demo as a user starts it: two real processes on a generated tree.

use std::{
    fs,
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use tokio::{process::Command, time::timeout};

/// Longest time for one run.
const LIMIT: Duration = Duration::from_secs(180);

async fn demo(dir: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorbell"));
    command.arg("demo").arg(dir).args(more);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let output = command.spawn().unwrap().wait_with_output();
    timeout(LIMIT, output)
        .await
        .expect("the demo ends in time")
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A tree with what trees have: code, prose, a large file, other encodings, binary and ignored files, and nothing at all.
fn write_tree(root: &Path) {
    let write = |name: &str, bytes: &[u8]| {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    for module in 0..12 {
        for file in 0..5 {
            let functions = (0..30).map(|n| {
                format!(
                    "fn handler_{file}_{n}(request: Request) -> Reply {{\n    todo!() // TODO\n}}\n"
                )
            });
            write(
                &format!("src/module_{module}/file_{file}.rs"),
                functions.collect::<String>().as_bytes(),
            );
        }
    }
    write(
        "large.log.txt",
        "2024-05-01 something happened, größer than before\r\n"
            .repeat(60_000)
            .as_bytes(),
    );
    write("latin1.txt", b"gr\xf6\xdfe\nna\xefve\n");
    write("one-line.json", "[1,2,3],".repeat(20_000).as_bytes());
    write("empty.txt", b"");
    write("picture.png", b"\x89PNG\0\0\0");
    write(".ignore", b"ignored.txt\n");
    write("ignored.txt", b"fn handler_0_0");
}

async fn play(transport: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    write_tree(dir.path());
    let output = demo(dir.path(), &[&["--work", "4"], transport].concat()).await;
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    assert!(
        out.contains("Everything that arrived was what it has to be."),
        "{out}\n{err}"
    );
    assert!(
        err.contains("Text files: 64"),
        "all but the binary and the ignored one: {err}"
    );
    assert!(err.contains("engine killed"), "{err}");
    assert!(err.contains("going on"), "{err}");
}

#[tokio::test]
async fn session_over_the_socket_has_no_differences() {
    play(&["--only", "socket"]).await;
}

#[tokio::test]
async fn session_over_doorbell_has_no_differences() {
    play(&["--only", "doorbell"]).await;
}

#[tokio::test]
async fn directory_without_text_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let output = demo(dir.path(), &[]).await;
    assert!(output.status.success());
    assert!(text(&output.stdout).contains("no text file"), "{output:?}");
}

#[tokio::test]
async fn directory_that_does_not_exist_is_named_in_the_error() {
    let dir = tempfile::tempdir().unwrap();
    let output = demo(&dir.path().join("missing"), &[]).await;
    assert!(!output.status.success());
    let err = text(&output.stderr);
    assert!(
        err.contains("missing") && err.contains("name a directory that exists"),
        "{err}"
    );
}
