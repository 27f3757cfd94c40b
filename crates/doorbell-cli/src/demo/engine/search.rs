//! Search with regular expressions: ripgrep's matcher and searcher over the files of the tree.

use std::{
    io,
    ops::ControlFlow::{self, Break, Continue},
    path::Path,
};

use grep::{
    regex::{RegexMatcher, RegexMatcherBuilder},
    searcher::{BinaryDetection, Searcher, SearcherBuilder, sinks::Lossy},
};

use super::{Fault, files};
use crate::demo::protocol::Hit;

/// Gives every matching line to `on_hit`, files in sorted order, until it breaks or `is_stopped` says so.
///
/// # Errors
///
/// [`Fault::Invalid`] if the pattern is no regular expression. Files that cannot be read are left out.
pub(crate) fn search(
    root: &Path,
    pattern: &str,
    is_stopped: impl Fn() -> bool,
    mut on_hit: impl FnMut(Hit) -> ControlFlow<()>,
) -> Result<(), Fault> {
    let matcher = matcher(pattern)?;
    let mut searcher = SearcherBuilder::new()
        .line_number(true)
        .binary_detection(BinaryDetection::quit(0))
        .build();
    for path in files::walk(root) {
        if is_stopped() {
            break;
        }
        let Some(name) = files::name_of(root, &path) else {
            continue;
        };
        if let Ok(Break(())) = search_file(&mut searcher, &matcher, &path, &name, &mut on_hit) {
            break;
        }
    }
    Ok(())
}

/// Returns all hits, sorted: what a search has to find.
///
/// # Errors
///
/// As [`search`].
pub(crate) fn search_all(root: &Path, pattern: &str) -> Result<Vec<Hit>, Fault> {
    let mut hits = Vec::new();
    search(
        root,
        pattern,
        || false,
        |hit| {
            hits.push(hit);
            Continue(())
        },
    )?;
    hits.sort_unstable();
    Ok(hits)
}

fn matcher(pattern: &str) -> Result<RegexMatcher, Fault> {
    RegexMatcherBuilder::new()
        .line_terminator(Some(b'\n'))
        .build(pattern)
        .map_err(|error| {
            Fault::Invalid(format!("{pattern:?} is not a regular expression: {error}"))
        })
}

fn search_file(
    searcher: &mut Searcher,
    matcher: &RegexMatcher,
    path: &Path,
    name: &str,
    on_hit: &mut impl FnMut(Hit) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    let mut flow = Continue(());
    let sink = Lossy(|line, text| {
        flow = on_hit(Hit {
            path: name.to_owned(),
            line,
            text: cut(text).to_owned(),
        });
        Ok(flow.is_continue())
    });
    searcher.search_path(matcher, path, sink)?;
    Ok(flow)
}

fn cut(line: &str) -> &str {
    let line = line.trim_end_matches(['\n', '\r']);
    &line[..line.floor_char_boundary(Hit::MAX_TEXT_BYTES)]
}

/// How the hits of two searches differ.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct HitDiff {
    /// Expected and not found.
    pub(crate) missing: Vec<Hit>,
    /// Found and not expected.
    pub(crate) extra: Vec<Hit>,
}

impl HitDiff {
    /// Compares two sorted lists of hits.
    pub(crate) fn between(expected: &[Hit], found: &[Hit]) -> Self {
        let (mut expected, mut found) = (expected.iter().peekable(), found.iter().peekable());
        let mut diff = Self::default();
        loop {
            match (expected.peek(), found.peek()) {
                (None, None) => return diff,
                (Some(a), Some(b)) if a == b => {
                    expected.next();
                    found.next();
                }
                (Some(a), b) if b.is_none_or(|b| a < b) => {
                    diff.missing.extend(expected.next().cloned())
                }
                _ => diff.extra.extend(found.next().cloned()),
            }
        }
    }

    /// Returns `true` if nothing differs.
    pub(crate) fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.extra.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(
            dir.path().join("a.rs"),
            "fn one() {}\n// TODO two\r\nfn three() {}\n",
        )
        .unwrap();
        fs::write(dir.path().join("b.bin"), b"fn \0binary").unwrap();
        fs::write(dir.path().join("c.txt"), format!("fn {}", "ä".repeat(400))).unwrap();
        dir
    }

    fn hit(path: &str, line: u64, text: &str) -> Hit {
        Hit {
            path: path.to_owned(),
            line,
            text: text.to_owned(),
        }
    }

    /// Obviously right: split into lines and look.
    fn naive(root: &Path, word: &str) -> Vec<Hit> {
        let mut hits = Vec::new();
        for path in files::walk(root) {
            let bytes = fs::read(&path).unwrap();
            if bytes.contains(&0) {
                continue;
            }
            for (index, line) in String::from_utf8_lossy(&bytes).lines().enumerate() {
                if line.contains(word) {
                    hits.push(hit(
                        &files::name_of(root, &path).unwrap(),
                        index as u64 + 1,
                        cut(line),
                    ));
                }
            }
        }
        hits.sort_unstable();
        hits
    }

    #[test]
    fn search_finds_what_a_naive_search_finds() {
        let dir = tree();
        for word in ["fn ", "TODO", "e", "ä", "nothing of the kind"] {
            assert_eq!(
                search_all(dir.path(), word).unwrap(),
                naive(dir.path(), word),
                "{word}"
            );
        }
    }

    #[test]
    fn long_line_is_cut_between_characters() {
        let dir = tree();
        let hits = search_all(dir.path(), "ää").unwrap();
        assert_eq!(hits.len(), 1);
        assert_eq!(hits[0].text.len(), 399);
    }

    #[test]
    fn search_stops_when_the_consumer_breaks() {
        let dir = tree();
        let mut seen = 0;
        search(
            dir.path(),
            "fn",
            || false,
            |_| {
                seen += 1;
                Break(())
            },
        )
        .unwrap();
        assert_eq!(seen, 1);
    }

    #[test]
    fn pattern_that_is_no_regex_is_a_fault_of_the_caller() {
        assert!(matches!(
            search_all(tree().path(), "("),
            Err(Fault::Invalid(_))
        ));
    }

    #[test]
    fn diff_names_missing_and_extra_hits() {
        let (a, b, c) = (hit("a", 1, "x"), hit("b", 1, "x"), hit("c", 1, "x"));
        let expected = [a.clone(), b.clone(), b.clone()];
        let found = [a, b.clone(), c.clone()];
        assert_eq!(
            HitDiff::between(&expected, &found),
            HitDiff {
                missing: vec![b],
                extra: vec![c]
            }
        );
        assert!(HitDiff::between(&found, &found).is_empty());
        assert_eq!(HitDiff::between(&[], &found).extra.len(), 3);
    }
}
