//! The engine of a code editor: serves the files below a directory. `cargo run --example editor` starts it.
//!
//! By hand: `cargo run --example engine -- NAME DIR`, then connect to `NAME`.

mod protocol;

use std::{
    collections::HashMap,
    error::Error,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use doorbell::{Context, ItemSender, ItemStream, Raw, Server, Status};
use protocol::{Complete, Diagnose, Diagnostics, Edit, Hit, OpenFile, Search};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_else(|| "engine".to_owned());
    let root = PathBuf::from(args.next().unwrap_or_else(|| ".".to_owned()));
    // It serves until the process ends, so handlers can simply borrow it.
    let engine: &Engine = Box::leak(Box::new(Engine::of_tree(root)));

    let server = Server::builder(&name)
        .on(move |_: Context, request: OpenFile| engine.open_file(request))
        .on_stream(move |_: Context, request: Search, out: ItemSender<Hit>| {
            engine.search(request, out)
        })
        .on_stream(
            move |_: Context, request: Complete, out: ItemSender<String>| {
                engine.complete(request, out)
            },
        )
        .on_notify(move |_: Context, edit: Edit| async move { engine.edit(edit) })
        .on_bidi(
            move |_: Context,
                  _: Diagnose,
                  paths: ItemStream<String>,
                  out: ItemSender<Diagnostics>| { engine.diagnose(paths, out) },
        )
        .bind()
        .await?;
    eprintln!(
        "engine: serving {} at {}",
        engine.root.display(),
        server.path().display()
    );
    server.serve_until(tokio::signal::ctrl_c()).await?;
    Ok(())
}

struct Engine {
    root: PathBuf,
    files: Vec<String>,
    /// Words that were seen after a word.
    following: HashMap<String, Vec<String>>,
    /// Texts that the user has changed.
    edited: Mutex<HashMap<String, String>>,
}

impl Engine {
    fn of_tree(root: PathBuf) -> Self {
        let (mut files, mut following) = (Vec::new(), HashMap::<String, Vec<String>>::new());
        list(&root, &root, &mut files);
        for text in files
            .iter()
            .filter_map(|file| fs::read_to_string(root.join(file)).ok())
        {
            let words: Vec<&str> = text.split_whitespace().collect();
            for pair in words.windows(2) {
                following
                    .entry(pair[0].to_owned())
                    .or_default()
                    .push(pair[1].to_owned());
            }
        }
        Self {
            root,
            files,
            following,
            edited: Mutex::default(),
        }
    }

    /// Answers with one reply. What a handler returns as an error is the status that the caller sees.
    async fn open_file(&self, request: OpenFile) -> Result<Raw, Status> {
        let path = self.path_of(&request.path)?;
        let bytes = tokio::fs::read(path)
            .await
            .map_err(|error| Status::not_found(format!("{}: {error}", request.path)))?;
        Ok(Raw::from(bytes))
    }

    /// Answers with a stream. When the editor drops it, this future is dropped at its next `await`.
    async fn search(&self, request: Search, mut out: ItemSender<Hit>) -> Result<(), Status> {
        for path in &self.files {
            let Ok(text) = tokio::fs::read_to_string(self.root.join(path)).await else {
                continue;
            };
            for (index, line) in text
                .lines()
                .enumerate()
                .filter(|(_, line)| line.contains(&request.text))
            {
                let hit = Hit {
                    path: path.clone(),
                    line: index + 1,
                    text: line.trim().to_owned(),
                };
                out.send(hit).await?; // waits while the editor does not keep up
            }
        }
        Ok(())
    }

    /// Streams words without an end of its own: the editor stops it.
    async fn complete(&self, request: Complete, mut out: ItemSender<String>) -> Result<(), Status> {
        let mut word = &request.last_word;
        for step in 0.. {
            let Some(next) = self.following.get(word) else {
                break;
            };
            word = &next[step % next.len()];
            out.send(word.clone()).await?;
        }
        Ok(())
    }

    fn edit(&self, edit: Edit) {
        self.with_text(&edit.path, |text| {
            if text.is_char_boundary(edit.offset) {
                text.insert_str(edit.offset, &edit.text);
            }
        });
    }

    /// Answers each path of one stream with an item of the other. Sees every edit that was sent before the path.
    async fn diagnose(
        &self,
        mut paths: ItemStream<String>,
        mut out: ItemSender<Diagnostics>,
    ) -> Result<(), Status> {
        while let Some(path) = paths.next().await {
            let path = path?;
            let (bytes, lines_with_todo) = self.with_text(&path, |text| {
                let lines = text
                    .lines()
                    .enumerate()
                    .filter(|(_, line)| line.contains("TODO"));
                (text.len(), lines.map(|(index, _)| index + 1).collect())
            });
            out.send(Diagnostics {
                path,
                bytes,
                lines_with_todo,
            })
            .await?;
        }
        Ok(())
    }

    fn with_text<T>(&self, path: &str, work: impl FnOnce(&mut String) -> T) -> T {
        let mut edited = self.edited.lock().unwrap_or_else(PoisonError::into_inner);
        let read = || {
            self.path_of(path)
                .ok()
                .and_then(|path| fs::read_to_string(path).ok())
                .unwrap_or_default()
        };
        work(edited.entry(path.to_owned()).or_insert_with(read))
    }

    /// Admits only files of the tree, whatever a client asks for.
    fn path_of(&self, path: &str) -> Result<PathBuf, Status> {
        let is_ours = self.files.iter().any(|file| file == path);
        is_ours
            .then(|| self.root.join(path))
            .ok_or_else(|| Status::not_found(format!("no file {path:?} in the tree")))
    }
}

fn list(root: &Path, dir: &Path, files: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if name.to_string_lossy().starts_with('.') || name == "target" {
            continue;
        }
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => list(root, &path, files),
            Ok(kind) if kind.is_file() => {
                files.extend(
                    path.strip_prefix(root)
                        .ok()
                        .and_then(Path::to_str)
                        .map(str::to_owned),
                );
            }
            _ => {}
        }
    }
}
