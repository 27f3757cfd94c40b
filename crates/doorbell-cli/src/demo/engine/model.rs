//! A small n-gram model: guesses the next token from the last two.
//!
//! Built from the same tree it is the same in both processes, and a completion depends on its prefix and seed alone. So the
//! editor knows every token that the engine has to send.

use std::{collections::HashMap, path::Path};

use xxhash_rust::xxh3::Xxh3;

use super::files;
use crate::random::Random;

/// Tokens after which building ends; more would only make the start slower.
const MAX_TOKENS: usize = 1_000_000;
/// Bytes taken from one file, so that a large one does not crowd out the others.
const MAX_BYTES_PER_FILE: usize = 64 << 10;

/// Guesses tokens.
#[derive(Debug)]
pub(crate) struct Model {
    vocabulary: Vec<Box<str>>,
    ids: HashMap<Box<str>, u32>,
    /// How often each token occurs.
    counts: Vec<u32>,
    after_two: HashMap<(u32, u32), Span>,
    after_one: HashMap<u32, Span>,
    followers: Vec<Follower>,
    token_count: usize,
}

/// A run of `followers`.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    len: u32,
}

/// A token that was seen after another, with the occurrences of it and all before it in its span.
#[derive(Clone, Copy, Debug)]
struct Follower {
    token: u32,
    cumulative: u32,
}

impl Model {
    /// Builds the model of the text files below `root`.
    pub(crate) fn of_tree(root: &Path) -> Self {
        let mut builder = Builder::default();
        for path in files::walk(root) {
            let Ok(bytes) = std::fs::read(&path) else {
                continue;
            };
            if files::is_text(&bytes) {
                builder.add(&String::from_utf8_lossy(
                    &bytes[..bytes.len().min(MAX_BYTES_PER_FILE)],
                ));
            }
            if builder.triples.len() >= MAX_TOKENS {
                break;
            }
        }
        builder.finish()
    }

    /// Returns the tokens that continue `prefix`, without end unless the model is empty.
    pub(crate) fn complete(&self, prefix: &str, seed: u64) -> Completion<'_> {
        let mut last = tokens(prefix).map(|token| self.ids.get(token).copied());
        let mut context = [None; 2];
        for id in last.by_ref() {
            context = [context[1], id];
        }
        Completion {
            model: self,
            context,
            random: Random::new(seed),
        }
    }

    /// Returns the words (no punctuation, no white space) with how often each occurs, most frequent first.
    pub(crate) fn words(&self) -> Vec<(&str, u32)> {
        let is_word = |token: &str| token.len() >= 4 && token.bytes().all(is_word_byte);
        let pairs = self.vocabulary.iter().zip(&self.counts);
        let mut words: Vec<_> = pairs
            .map(|(word, count)| (&**word, *count))
            .filter(|(word, _)| is_word(word))
            .collect();
        words.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        words
    }

    /// Number of tokens from which the model was built.
    pub(crate) fn token_count(&self) -> usize {
        self.token_count
    }

    /// Returns a number that is equal for equal models.
    pub(crate) fn fingerprint(&self) -> u128 {
        let mut hash = Xxh3::new();
        for (word, count) in self.vocabulary.iter().zip(&self.counts) {
            hash.update(word.as_bytes());
            hash.update(&count.to_le_bytes());
        }
        for follower in &self.followers {
            hash.update(&follower.token.to_le_bytes());
            hash.update(&follower.cumulative.to_le_bytes());
        }
        hash.digest128()
    }

    fn next(&self, context: [Option<u32>; 2], random: &mut Random) -> Option<u32> {
        let span = match context {
            [Some(a), Some(b)] => self
                .after_two
                .get(&(a, b))
                .or_else(|| self.after_one.get(&b)),
            [_, Some(b)] => self.after_one.get(&b),
            [_, None] => None,
        };
        match span {
            Some(span) => Some(self.pick(*span, random)),
            None if self.vocabulary.is_empty() => None,
            None => Some(random.below(self.vocabulary.len()) as u32),
        }
    }

    fn pick(&self, span: Span, random: &mut Random) -> u32 {
        let followers = &self.followers[span.start as usize..][..span.len as usize];
        let total = followers
            .last()
            .expect("a span holds at least one follower")
            .cumulative;
        let point = random.below(total as usize) as u32;
        followers[followers.partition_point(|follower| follower.cumulative <= point)].token
    }
}

/// The tokens that continue a prefix. Ends only if the model is empty.
#[derive(Debug)]
pub(crate) struct Completion<'a> {
    model: &'a Model,
    context: [Option<u32>; 2],
    random: Random,
}

impl<'a> Iterator for Completion<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let token = self.model.next(self.context, &mut self.random)?;
        self.context = [self.context[1], Some(token)];
        Some(&self.model.vocabulary[token as usize])
    }
}

#[derive(Default)]
struct Builder {
    vocabulary: Vec<Box<str>>,
    ids: HashMap<Box<str>, u32>,
    counts: Vec<u32>,
    triples: Vec<[u32; 3]>,
}

impl Builder {
    fn add(&mut self, text: &str) {
        let ids: Vec<u32> = tokens(text).map(|token| self.id_of(token)).collect();
        self.triples.extend(ids.array_windows::<3>());
    }

    fn id_of(&mut self, token: &str) -> u32 {
        let id = match self.ids.get(token) {
            Some(id) => *id,
            None => {
                let id = self.vocabulary.len() as u32;
                self.vocabulary.push(token.into());
                self.ids.insert(token.into(), id);
                self.counts.push(0);
                id
            }
        };
        self.counts[id as usize] += 1;
        id
    }

    fn finish(mut self) -> Model {
        let mut followers = Vec::new();
        self.triples.sort_unstable();
        let after_two = group(
            self.triples.iter().map(|[a, b, c]| ((*a, *b), *c)),
            &mut followers,
        );
        let mut pairs: Vec<_> = self.triples.iter().map(|[_, b, c]| (*b, *c)).collect();
        pairs.sort_unstable();
        let after_one = group(pairs.into_iter(), &mut followers);
        Model {
            token_count: self.counts.iter().map(|count| *count as usize).sum(),
            vocabulary: self.vocabulary,
            ids: self.ids,
            counts: self.counts,
            after_two,
            after_one,
            followers,
        }
    }
}

/// Makes a span for each run of equal keys; `sorted` is sorted by key and token.
fn group<K: Copy + Eq + std::hash::Hash>(
    sorted: impl Iterator<Item = (K, u32)>,
    followers: &mut Vec<Follower>,
) -> HashMap<K, Span> {
    let mut spans: HashMap<K, Span> = HashMap::new();
    for (key, token) in sorted {
        let span = spans.entry(key).or_insert(Span {
            start: followers.len() as u32,
            len: 0,
        });
        let seen = followers[span.start as usize..].last().copied();
        match seen {
            Some(last) if last.token == token => {
                followers.last_mut().expect("just seen").cumulative += 1
            }
            _ => {
                followers.push(Follower {
                    token,
                    cumulative: seen.map_or(0, |last| last.cumulative) + 1,
                });
                span.len += 1;
            }
        }
    }
    spans
}

/// Divides text into words, runs of white space and single other characters.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let len = if is_word(first) {
            rest.find(|c| !is_word(c))
        } else if first.is_whitespace() {
            rest.find(|c: char| !c.is_whitespace())
        } else {
            Some(first.len_utf8())
        };
        let (token, after) = rest.split_at(len.unwrap_or(rest.len()));
        rest = after;
        Some(token)
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn model(texts: &[&str]) -> Model {
        let mut builder = Builder::default();
        texts.iter().for_each(|text| builder.add(text));
        builder.finish()
    }

    #[test]
    fn tokens_put_together_are_the_text() {
        let text = "let größe = a_1 + (b)\n\t// 100 %";
        assert_eq!(tokens(text).collect::<String>(), text);
        assert_eq!(tokens("ab  c;").collect::<Vec<_>>(), ["ab", "  ", "c", ";"]);
    }

    #[test]
    fn completion_of_a_text_without_choice_is_that_text() {
        let model = model(&["the quick brown fox jumps"]);
        let text: String = model.complete("the ", 1).take(5).collect();
        assert_eq!(text, "quick brown fox");
    }

    #[test]
    fn last_two_tokens_decide_where_one_would_not() {
        let model = model(&["+xx-one", "/xx*two"]);
        let after = |prefix| {
            (0..64)
                .filter_map(|seed| model.complete(prefix, seed).next())
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(after("+xx"), ["-"].into());
        assert_eq!(after("/xx"), ["*"].into());
        assert_eq!(after("xx"), ["*", "-"].into());
    }

    #[test]
    fn frequent_followers_are_picked_more_often() {
        let model = model(&["a b. a b. a b. a c."]);
        let count = (0..1000)
            .filter(|seed| model.complete("a ", *seed).next() == Some("b"))
            .count();
        assert!(
            (650..850).contains(&count),
            "3 of 4 expected, got {count} of 1000"
        );
    }

    #[test]
    fn same_seed_gives_the_same_tokens() {
        let model = model(&["fn a() { b() } fn b() { c() } fn c() { a() }"]);
        let of = |seed| model.complete("fn ", seed).take(40).collect::<String>();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn empty_model_completes_nothing_and_any_other_never_ends() {
        assert_eq!(model(&[]).complete("x", 1).next(), None);
        assert_eq!(
            model(&["one two"])
                .complete("unknown", 1)
                .take(10_000)
                .count(),
            10_000
        );
    }

    #[test]
    fn fingerprint_tells_models_apart() {
        assert_eq!(
            model(&["a b c"]).fingerprint(),
            model(&["a b c"]).fingerprint()
        );
        assert_ne!(
            model(&["a b c"]).fingerprint(),
            model(&["a b d"]).fingerprint()
        );
    }
}
