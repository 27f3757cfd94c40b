//! The files of the tree: which there are, which of them are text, and their bytes.
//!
//! Both processes use this: the engine to answer, the editor to know what the answer has to be.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use ignore::{DirEntry, WalkBuilder};

use super::Fault;

/// A file larger than this is no source text; it is left out.
pub(crate) const MAX_FILE_BYTES: u64 = 64 << 20;

/// Bytes at the start of a file that decide whether it is text.
const PROBE_BYTES: usize = 8 << 10;

/// Lists the regular files below `root`, sorted, without those that `.gitignore` and its like name and without hidden ones.
pub(crate) fn walk(root: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let walk = WalkBuilder::new(root)
        .sort_by_file_path(|a, b| a.cmp(b))
        .build();
    walk.filter_map(Result::ok)
        .filter(is_candidate)
        .map(DirEntry::into_path)
}

fn is_candidate(entry: &DirEntry) -> bool {
    entry.file_type().is_some_and(|kind| kind.is_file())
        && entry
            .metadata()
            .is_ok_and(|metadata| metadata.len() <= MAX_FILE_BYTES)
}

/// Returns `true` if `bytes` are text, by git's rule: no zero byte near the start.
pub(crate) fn is_text(bytes: &[u8]) -> bool {
    !bytes[..bytes.len().min(PROBE_BYTES)].contains(&0)
}

/// Returns the name by which messages call the file: relative to `root`, with `/`. `None` if it is not Unicode.
pub(crate) fn name_of(root: &Path, path: &Path) -> Option<String> {
    let relative = path.strip_prefix(root).ok()?;
    let parts: Option<Vec<&str>> = relative
        .components()
        .map(|part| part.as_os_str().to_str())
        .collect();
    Some(parts?.join("/"))
}

/// Reads the file that a message names.
///
/// # Errors
///
/// [`Fault::Invalid`] if the name leads out of the tree, [`Fault::NotFound`] if there is no such file.
pub(crate) fn read(root: &Path, name: &str) -> Result<Vec<u8>, Fault> {
    let relative = Path::new(name);
    if !relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)))
    {
        return Err(Fault::Invalid(format!(
            "{name:?} is not a path inside the tree"
        )));
    }
    fs::read(root.join(relative)).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Fault::NotFound(format!("there is no file {name:?}")),
        _ => Fault::Internal(format!("cannot read {name:?}: {error}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_what_has_no_zero_byte_near_its_start() {
        assert!(is_text(b""));
        assert!(is_text("größe\n".as_bytes()));
        assert!(is_text(&[0xff, 0xfe, b'a']));
        assert!(!is_text(b"ELF\0\x01"));
        let mut late = vec![b'a'; PROBE_BYTES];
        late.push(0);
        assert!(is_text(&late), "only the start is looked at");
    }

    #[test]
    fn walk_is_sorted_and_leaves_out_ignored_and_hidden_files() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("b.rs", "b"),
            ("a/z.rs", "z"),
            (".hidden", "h"),
            ("skip.log", "l"),
            (".ignore", "*.log"),
        ] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let names: Vec<_> = walk(dir.path())
            .filter_map(|path| name_of(dir.path(), &path))
            .collect();
        assert_eq!(names, ["a/z.rs", "b.rs"]);
    }

    #[test]
    fn read_refuses_names_that_lead_out_of_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("in.txt"), "in").unwrap();
        assert_eq!(read(dir.path(), "in.txt").unwrap(), b"in");
        for name in ["../in.txt", "/etc/passwd", "./in.txt/../../x"] {
            assert!(
                matches!(read(dir.path(), name), Err(Fault::Invalid(_))),
                "{name}"
            );
        }
        assert!(matches!(
            read(dir.path(), "out.txt"),
            Err(Fault::NotFound(_))
        ));
    }
}
