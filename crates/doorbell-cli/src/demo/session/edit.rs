//! The lane that types into some documents and asks for diagnostics of each version on a stream in both directions.

use std::{collections::VecDeque, time::Instant};

use xxhash_rust::xxh3::xxh3_128;

use super::{
    context::{Context, Lane},
    record::Timed,
};
use crate::demo::{
    engine::documents::Document,
    link::{Ending, Failure, Items, Sender},
    protocol::{Diagnose, Diagnostics, DiagnosticsQuery, Edit, OpenDocument},
};
use crate::random::Random;

/// Most edits between two queries.
const MAX_BURST: usize = 8;

/// What the user types, now and then something that the engine has to find.
const TYPED: [&str; 12] = [
    "a",
    "e",
    "n",
    "(",
    ")",
    " ",
    "\n",
    "ö",
    "TODO",
    "let x = 1;\n",
    "\t",
    "}",
];

/// The editor's documents. They outlive the engine.
#[derive(Clone, Debug)]
pub(crate) struct Documents(pub(crate) Vec<(String, Document)>);

/// Types for the given rounds; returns the documents and the rounds that were not reached as the engine has gone.
pub(crate) async fn run(
    context: &Context,
    mut documents: Documents,
    mut rounds: VecDeque<u64>,
) -> (Documents, VecDeque<u64>) {
    let mut session = None;
    if context
        .attempt("OpenDocument", open(context, &documents, &mut session))
        .await
        .is_err()
    {
        return (documents, rounds);
    }
    let Some((mut queries, mut answers)) = session else {
        return (documents, VecDeque::new());
    };
    while let Some(round) = rounds.front() {
        let work = type_round(context, &mut documents, *round, &mut queries, &mut answers);
        if context.attempt("Diagnose", work).await.is_err() {
            return (documents, rounds);
        }
        rounds.pop_front();
        context.advance(Lane::Edit);
    }
    let _ = context.attempt("Diagnose", end(queries, answers)).await; // its failure is recorded; no work is left of it
    (documents, rounds)
}

type Session = (Sender<DiagnosticsQuery>, Items<Diagnostics>);

async fn open(
    context: &Context,
    documents: &Documents,
    session: &mut Option<Session>,
) -> Result<(), Failure> {
    for (path, Document { version, text }) in &documents.0 {
        let hash = xxh3_128(text.as_bytes());
        let request = OpenDocument {
            path: path.clone(),
            version: *version,
            text: text.clone(),
        };
        let opened = context.link.call(request, context.plan.limit).await?;
        context.record(|record| {
            record.compare(opened.hash == hash, || {
                format!("{path}: the engine opened another text")
            })
        });
    }
    *session = Some(context.link.bidi(Diagnose {}).await?);
    Ok(())
}

async fn type_round(
    context: &Context,
    documents: &mut Documents,
    round: u64,
    queries: &mut Sender<DiagnosticsQuery>,
    answers: &mut Items<Diagnostics>,
) -> Result<(), Failure> {
    let mut random = Random::new(round);
    let mut expected = Vec::with_capacity(documents.0.len());
    for (path, document) in &mut documents.0 {
        for _ in 0..=random.below(MAX_BURST) {
            type_once(context, path, document, &mut random).await?;
        }
        let asked = Instant::now();
        queries
            .send(DiagnosticsQuery {
                path: path.clone(),
                version: document.version,
            })
            .await?;
        expected.push((document.diagnostics(path), asked));
    }
    for (expected, asked) in expected {
        let answer = answers.next().await.transpose()?;
        let answer = answer.ok_or_else(|| Failure {
            ending: Ending::Refused,
            text: "the stream ended early".to_owned(),
        })?;
        let bytes = answer.path.len() + size_of_val(answer.findings.as_slice());
        let (path, version) = (&expected.path, expected.version);
        context.record(|record| {
            record.add(Timed::Diagnostics, asked.elapsed(), bytes);
            record.compare(answer == expected, || {
                format!("{path} version {version}: other diagnostics")
            });
        });
    }
    Ok(())
}

async fn type_once(
    context: &Context,
    path: &str,
    document: &mut Document,
    random: &mut Random,
) -> Result<(), Failure> {
    let edit = choose_edit(path, document, random);
    document.apply(&edit).expect("the edit was chosen to fit");
    let (bytes, started) = (edit.text.len(), Instant::now());
    context.link.notify(&edit).await?;
    let time = started.elapsed();
    context.record(|record| record.add(Timed::Edit, time, bytes));
    Ok(())
}

/// Chooses a place near the last edit's, as a user would, and text to put there; one edit in four deletes.
fn choose_edit(path: &str, document: &Document, random: &mut Random) -> Edit {
    let text = &document.text;
    let start = text.floor_char_boundary(random.below(text.len() + 1));
    let is_deletion = random.below(4) == 0;
    let end = if is_deletion {
        text.ceil_char_boundary((start + 3).min(text.len()))
    } else {
        start
    };
    let typed = if is_deletion {
        ""
    } else {
        TYPED[random.below(TYPED.len())]
    };
    Edit {
        path: path.to_owned(),
        version: document.version + 1,
        start: start as u64,
        end: end as u64,
        text: typed.to_owned(),
    }
}

async fn end(
    queries: Sender<DiagnosticsQuery>,
    mut answers: Items<Diagnostics>,
) -> Result<(), Failure> {
    queries.finish();
    match answers.next().await.transpose()? {
        None => Ok(()),
        Some(_) => Err(Failure {
            ending: Ending::Refused,
            text: "diagnostics that nobody asked for".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_edits_always_fit() {
        let mut document = Document {
            version: 0,
            text: "größe\n→".to_owned(),
        };
        let mut random = Random::new(1);
        for version in 1..=2_000 {
            let edit = choose_edit("a", &document, &mut random);
            document.apply(&edit).unwrap();
            assert_eq!(document.version, version);
        }
    }
}
