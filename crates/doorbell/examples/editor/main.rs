//! A code editor that starts its engine as a second process and uses it.
//!
//! Run `cargo build --examples`, then `cargo run --example editor -- [DIR]`.

#[path = "../engine/protocol.rs"]
mod protocol;

use std::{error::Error, time::Duration};

use doorbell::{Client, NotifyError, Outcome};
use protocol::{Complete, Diagnose, Edit, OpenFile, Search};
use tokio::process::{Child, Command};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let name = format!("engine-of-{}", std::process::id());
    let mut engine = start_engine(&name, &dir)?;
    let client = Client::builder(&name)
        .wait_for_server(Duration::from_secs(10))
        .connect()
        .await?;

    let path = search(&client, "the")
        .await?
        .ok_or("nothing in this directory contains \"the\"; name another")?;
    open_file(&client, &path).await?;
    complete(&client, "the").await?;
    edit(&client, &path).await?;

    engine.kill().await?;
    let error = client
        .call(OpenFile { path })
        .timeout(Duration::from_secs(1))
        .await
        .expect_err("the engine is dead");
    println!("without the engine: {error} ({:?})", error.outcome());
    assert_ne!(error.outcome(), Outcome::Application);
    Ok(())
}

/// The engine is the example beside this one. It ends with the editor.
fn start_engine(name: &str, dir: &str) -> Result<Child, Box<dyn Error>> {
    let program =
        std::env::current_exe()?.with_file_name(format!("engine{}", std::env::consts::EXE_SUFFIX));
    let started = Command::new(&program)
        .args([name, dir])
        .kill_on_drop(true)
        .spawn();
    Ok(started.map_err(|error| {
        format!(
            "cannot start {}: {error}; run `cargo build --examples`",
            program.display()
        )
    })?)
}

/// A stream: take what you need and drop it; that cancels the search.
async fn search(client: &Client, text: &str) -> Result<Option<String>, Box<dyn Error>> {
    let mut hits = client
        .stream(Search {
            text: text.to_owned(),
        })
        .await?;
    let mut path = None;
    while let Some(hit) = hits.next().await {
        let hit = hit?;
        println!("{}:{}: {}", hit.path, hit.line, hit.text);
        if path.replace(hit.path).is_some() {
            break; // two are enough
        }
    }
    Ok(path)
}

/// A call with a deadline. Its error says whether the engine may have run it.
async fn open_file(client: &Client, path: &str) -> Result<(), Box<dyn Error>> {
    let request = OpenFile {
        path: path.to_owned(),
    };
    match client.call(request).timeout(Duration::from_secs(5)).await {
        Ok(bytes) => println!("{path} has {} bytes", bytes.0.len()),
        Err(error) if error.is_retryable() => println!("not now: {error}"),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// The engine would go on for ever; it stops when the stream is dropped.
async fn complete(client: &Client, last_word: &str) -> Result<(), Box<dyn Error>> {
    let mut words = client
        .stream(Complete {
            last_word: last_word.to_owned(),
        })
        .await?;
    print!("{last_word}");
    for _ in 0..8 {
        let Some(word) = words.next().await else {
            break;
        };
        print!(" {}", word?);
    }
    println!(" ...");
    Ok(())
}

/// Notifications for what the user types, and a stream in both directions for what the engine thinks of it.
async fn edit(client: &Client, path: &str) -> Result<(), Box<dyn Error>> {
    let (mut paths, mut diagnostics) = client.bidi(Diagnose {}).await?;
    for (offset, key) in "TODO\n".char_indices() {
        type_key(client, path, offset, key).await?;
    }
    paths.send(path.to_owned()).await?;
    paths.finish();
    while let Some(found) = diagnostics.next().await {
        let found = found?;
        println!(
            "{} has {} bytes now, and TODO in lines {:?}",
            found.path, found.bytes, found.lines_with_todo
        );
        assert!(found.lines_with_todo.contains(&1), "what was just typed");
    }
    Ok(())
}

async fn type_key(
    client: &Client,
    path: &str,
    offset: usize,
    key: char,
) -> Result<(), Box<dyn Error>> {
    loop {
        match client.notify(Edit {
            path: path.to_owned(),
            offset,
            text: key.into(),
        }) {
            Err(NotifyError::Full { .. }) => client.writable().await?, // the engine is behind
            done => return Ok(done?),
        }
    }
}
