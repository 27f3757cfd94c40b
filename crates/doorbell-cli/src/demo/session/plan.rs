//! What a session does, and what has to come of it: decided before it starts, from the tree itself, the same for both
//! transports.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use xxhash_rust::xxh3::xxh3_128;

use crate::demo::{
    engine::{documents::Document, files, model::Model, search},
    protocol::Hit,
};
use crate::random::Random;

/// Files that are opened; a larger tree is cut here.
const MAX_FILES: usize = 10_000;
/// Bytes of all files that are opened.
const MAX_TOTAL_BYTES: u64 = 1 << 30;
/// A small tree is opened several times over, until this many files have been opened.
const MIN_OPENS: usize = 40_000;
/// Most times a file is opened.
const MAX_PASSES: u64 = 100;
/// A file is opened again only while all that is opened stays below this.
const MAX_OPENED_BYTES: u64 = 1 << 30;
/// Time that all planned searches take in this process alone.
const SEARCH_BUDGET: Duration = Duration::from_secs(2);
/// Searches are repeated until there are this many, unless one takes longer than [`SLOW_SEARCH`].
const MIN_SEARCHES: usize = 150;
const SLOW_SEARCH: Duration = Duration::from_millis(50);
/// Patterns with more hits than this are left out.
const MAX_HITS: usize = 5_000;
/// Completions are asked for in waves of this many at once.
pub(crate) const WAVE: usize = 8;
const WAVES: usize = 2500;
/// Tokens of a completion that is read to its end.
pub(crate) const FULL_TOKENS: u32 = 64;
const MAX_DROPPED_AFTER: usize = 40;
const PREFIX_BYTES: usize = 80;
const DOCUMENTS: usize = 6;
const EDIT_ROUNDS: usize = 4000;
/// Size of the files in which the user types.
const DOCUMENT_BYTES: std::ops::RangeInclusive<usize> = 1..=64 << 10;

/// The plan of a session.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The tree.
    pub(crate) root: PathBuf,
    /// Text files and what they hold.
    pub(crate) files: Vec<PlannedFile>,
    /// Files to open, as indices.
    pub(crate) opens: VecDeque<usize>,
    /// Searches, in the order in which they start.
    pub(crate) searches: VecDeque<SearchJob>,
    /// The hits of each pattern that is searched to its end, sorted.
    pub(crate) expected_hits: BTreeMap<String, Vec<Hit>>,
    /// Completions, in waves.
    pub(crate) completions: VecDeque<Vec<CompletionJob>>,
    /// Texts in which the user types.
    pub(crate) documents: Vec<(String, Document)>,
    /// Rounds of edits.
    pub(crate) edit_rounds: VecDeque<u64>,
    /// Longest time for one piece of work.
    pub(crate) limit: Duration,
    /// Text files that are not part of the session, as the tree is too large.
    pub(crate) left_out: usize,
}

/// A text file and what it holds.
#[derive(Debug)]
pub(crate) struct PlannedFile {
    /// Path below the root.
    pub(crate) path: String,
    /// Size in bytes.
    pub(crate) len: u64,
    /// Hash of its bytes.
    pub(crate) hash: u128,
}

/// A user's search.
#[derive(Clone, Debug)]
pub(crate) struct SearchJob {
    /// What the user had typed before; each is dropped for the next.
    pub(crate) typed: Vec<String>,
    /// What is searched to the end.
    pub(crate) pattern: String,
}

/// A completion at a position of a file.
#[derive(Clone, Debug)]
pub(crate) struct CompletionJob {
    /// File.
    pub(crate) path: String,
    /// Position.
    pub(crate) offset: u64,
    /// Text before it.
    pub(crate) prefix: String,
    /// Seed.
    pub(crate) seed: u64,
    /// Tokens after which the editor drops the stream; `None` if it reads [`FULL_TOKENS`] to the end.
    pub(crate) drop_after: Option<usize>,
}

impl Plan {
    /// Reads the tree and plans a session of the given part of the usual work. `None` if there is no text file.
    pub(crate) fn of_tree(root: &Path, model: &Model, percent: usize) -> Option<Self> {
        let (files, left_out) = list(root);
        if files.is_empty() {
            return None;
        }
        let share = |of: usize| (of * percent).div_ceil(100);
        let mut random = Random::new(files.len() as u64);
        let (searches, expected_hits, slowest) =
            plan_searches(root, model, share(MIN_SEARCHES), &mut random);
        let total_bytes = files.iter().map(|file| file.len).sum::<u64>().max(1);
        let max_passes = (MAX_OPENED_BYTES / total_bytes).clamp(1, MAX_PASSES) as usize;
        let passes = share(MIN_OPENS).div_ceil(files.len()).clamp(1, max_passes);
        Some(Self {
            root: root.to_owned(),
            opens: (0..passes).flat_map(|_| 0..files.len()).collect(),
            searches,
            expected_hits,
            completions: plan_completions(root, &files, share(WAVES), &mut random),
            documents: choose_documents(root, &files),
            edit_rounds: (0..share(EDIT_ROUNDS) as u64).collect(),
            limit: Duration::from_secs(30) + 20 * slowest,
            left_out,
            files,
        })
    }

    /// Returns the size of all text files together.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.len).sum()
    }
}

fn list(root: &Path) -> (Vec<PlannedFile>, usize) {
    let (mut planned, mut total, mut left_out) = (Vec::new(), 0, 0);
    for path in files::walk(root) {
        let Some(name) = files::name_of(root, &path) else {
            continue;
        };
        if planned.len() == MAX_FILES || total >= MAX_TOTAL_BYTES {
            left_out += 1;
            continue;
        }
        match std::fs::read(&path) {
            Ok(bytes) if files::is_text(&bytes) => {
                total += bytes.len() as u64;
                planned.push(PlannedFile {
                    path: name,
                    len: bytes.len() as u64,
                    hash: xxh3_128(&bytes),
                });
            }
            _ => {}
        }
    }
    (planned, left_out)
}

/// Chooses what to search: some expressions, and words of the tree, rare and frequent, as a user would type them.
fn plan_searches(
    root: &Path,
    model: &Model,
    min_searches: usize,
    random: &mut Random,
) -> (VecDeque<SearchJob>, BTreeMap<String, Vec<Hit>>, Duration) {
    let fixed = [
        r"TODO|FIXME|XXX",
        r"^\s*(pub )?(async )?fn \w+",
        r"\b[A-Z]\w+Error\b",
        r"\b(19|20)\d\d\b",
    ];
    let words = model.words();
    let ranks = (0..24).rev().map(|step| (1.6f64.powi(step) * 3.0) as usize);
    let words = ranks
        .filter_map(|rank| words.get(rank))
        .map(|(word, _)| (*word).to_owned());
    let (mut jobs, mut expected) = (Vec::new(), BTreeMap::new());
    let (started, mut slowest) = (Instant::now(), Duration::ZERO);
    for pattern in fixed.map(str::to_owned).into_iter().chain(words) {
        let before = Instant::now();
        let Ok(hits) = search::search_all(root, &pattern) else {
            continue;
        };
        slowest = slowest.max(before.elapsed());
        if hits.len() > MAX_HITS {
            continue;
        }
        let is_word = pattern
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let typed = if is_word {
            (2..pattern.len().min(6))
                .map(|len| pattern[..len].to_owned())
                .collect()
        } else {
            vec![]
        };
        jobs.push(SearchJob {
            typed,
            pattern: pattern.clone(),
        });
        jobs.push(SearchJob {
            typed: Vec::new(),
            pattern: pattern.clone(),
        });
        expected.insert(pattern, hits);
        if started.elapsed() > SEARCH_BUDGET {
            break;
        }
    }
    let repeats = min_searches.div_ceil(jobs.len().max(1));
    let count = jobs.len() * if slowest < SLOW_SEARCH { repeats } else { 1 };
    let mut jobs: Vec<_> = jobs.into_iter().cycle().take(count).collect();
    for index in (1..jobs.len()).rev() {
        jobs.swap(index, random.below(index + 1));
    }
    (jobs.into(), expected, slowest)
}

fn plan_completions(
    root: &Path,
    files: &[PlannedFile],
    waves: usize,
    random: &mut Random,
) -> VecDeque<Vec<CompletionJob>> {
    let small: Vec<_> = files.iter().filter(|file| file.len <= 1 << 20).collect();
    if small.is_empty() {
        return VecDeque::new();
    }
    let mut wave_of = |_| {
        (0..WAVE)
            .filter_map(|index| plan_completion(root, &small, index, random))
            .collect()
    };
    (0..waves)
        .map(&mut wave_of)
        .filter(|wave: &Vec<_>| !wave.is_empty())
        .collect()
}

fn plan_completion(
    root: &Path,
    files: &[&PlannedFile],
    index: usize,
    random: &mut Random,
) -> Option<CompletionJob> {
    let file = files[random.below(files.len())];
    let bytes = files::read(root, &file.path).ok()?;
    let offset = random.below(bytes.len() + 1);
    let prefix = &bytes[offset.saturating_sub(PREFIX_BYTES)..offset];
    let dropped_after = 1 + random.below(MAX_DROPPED_AFTER);
    Some(CompletionJob {
        path: file.path.clone(),
        offset: offset as u64,
        prefix: String::from_utf8_lossy(prefix).into_owned(),
        seed: random.next_u64(),
        drop_after: (index % 2 == 1).then_some(dropped_after),
    })
}

fn choose_documents(root: &Path, files: &[PlannedFile]) -> Vec<(String, Document)> {
    let suitable: Vec<_> = files
        .iter()
        .filter(|file| DOCUMENT_BYTES.contains(&(file.len as usize)))
        .collect();
    let step = (suitable.len() / DOCUMENTS).max(1);
    let texts = suitable.into_iter().step_by(step).filter_map(|file| {
        let text = String::from_utf8(files::read(root, &file.path).ok()?).ok()?;
        Some((file.path.clone(), Document { version: 0, text }))
    });
    texts.take(DOCUMENTS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tree_without_text_has_no_plan() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Plan::of_tree(dir.path(), &Model::of_tree(dir.path()), 100).is_none());
        std::fs::write(dir.path().join("x.bin"), b"\0\0").unwrap();
        assert!(Plan::of_tree(dir.path(), &Model::of_tree(dir.path()), 100).is_none());
    }

    #[test]
    fn one_empty_file_is_enough_for_a_plan() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("empty.txt"), "").unwrap();
        let plan = Plan::of_tree(dir.path(), &Model::of_tree(dir.path()), 100).unwrap();
        assert_eq!(
            (plan.opens.len(), plan.documents.len()),
            (MAX_PASSES as usize, 0)
        );
    }

    #[test]
    fn half_of_the_completions_are_dropped_and_words_are_typed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("a.rs"),
            "alpha beta gamma delta epsilon zeta\n".repeat(20),
        )
        .unwrap();
        let plan = Plan::of_tree(dir.path(), &Model::of_tree(dir.path()), 100).unwrap();
        let jobs: Vec<_> = plan.completions.iter().flatten().collect();
        assert_eq!(
            jobs.iter().filter(|job| job.drop_after.is_some()).count() * 2,
            jobs.len()
        );
        assert!(plan.searches.iter().any(|job| !job.typed.is_empty()));
        assert!(
            plan.searches
                .iter()
                .all(|job| plan.expected_hits.contains_key(&job.pattern))
        );
    }
}
