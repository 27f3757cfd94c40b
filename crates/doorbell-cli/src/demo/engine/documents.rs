//! Documents that the user is editing: texts with versions.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_128;

use super::{Fault, diagnostics::diagnose};
use crate::demo::protocol::{Diagnostics, DiagnosticsQuery, DocumentOpened, Edit, OpenDocument};

/// A text and its version. The editor has one and the engine has one; the edits keep them equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Document {
    /// Counts the edits.
    pub(crate) version: u64,
    /// The text.
    pub(crate) text: String,
}

impl Document {
    /// Applies an edit.
    ///
    /// # Errors
    ///
    /// [`Fault::Invalid`] if the edit does not follow this version or does not fit the text; nothing has changed then.
    pub(crate) fn apply(&mut self, edit: &Edit) -> Result<(), Fault> {
        if edit.version != self.version + 1 {
            return Err(Fault::Invalid(format!(
                "edit {} does not follow version {}",
                edit.version, self.version
            )));
        }
        let range = edit.start as usize..edit.end as usize;
        if self.text.get(range.clone()).is_none() {
            return Err(Fault::Invalid(format!(
                "bytes {range:?} are no piece of the text"
            )));
        }
        self.text.replace_range(range, &edit.text);
        self.version = edit.version;
        Ok(())
    }

    /// Looks for findings in the text.
    pub(crate) fn diagnostics(&self, path: &str) -> Diagnostics {
        Diagnostics {
            path: path.to_owned(),
            version: self.version,
            hash: xxh3_128(self.text.as_bytes()),
            findings: diagnose(&self.text),
        }
    }
}

/// All open documents of the engine.
#[derive(Debug)]
pub(crate) struct Documents {
    by_path: Mutex<HashMap<String, Document>>,
    changed: watch::Sender<()>,
}

impl Documents {
    /// Starts without documents.
    pub(crate) fn new() -> Self {
        Self {
            by_path: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }

    /// Opens a document, or replaces what was open under its name.
    pub(crate) fn open(&self, request: OpenDocument) -> DocumentOpened {
        let hash = xxh3_128(request.text.as_bytes());
        let document = Document {
            version: request.version,
            text: request.text,
        };
        self.lock().insert(request.path, document);
        self.changed.send_replace(());
        DocumentOpened { hash }
    }

    /// Applies an edit.
    ///
    /// # Errors
    ///
    /// As [`Document::apply`], and [`Fault::NotFound`] if the document is not open.
    pub(crate) fn apply(&self, edit: &Edit) -> Result<(), Fault> {
        self.lock()
            .get_mut(&edit.path)
            .ok_or_else(|| not_open(&edit.path))?
            .apply(edit)?;
        self.changed.send_replace(());
        Ok(())
    }

    /// Waits until the document has the version asked for, then looks at it.
    ///
    /// # Errors
    ///
    /// [`Fault::NotFound`] if the document is not open.
    pub(crate) async fn diagnostics(&self, query: &DiagnosticsQuery) -> Result<Diagnostics, Fault> {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(document) = self.at_version(query)? {
                return Ok(document.diagnostics(&query.path));
            }
            changed.changed().await.map_err(|_| Fault::Cancelled)?;
        }
    }

    fn at_version(&self, query: &DiagnosticsQuery) -> Result<Option<Document>, Fault> {
        let documents = self.lock();
        let document = documents
            .get(&query.path)
            .ok_or_else(|| not_open(&query.path))?;
        Ok((document.version >= query.version).then(|| document.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Document>> {
        self.by_path.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_open(path: &str) -> Fault {
    Fault::NotFound(format!("the document {path:?} is not open"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(version: u64, start: u64, end: u64, text: &str) -> Edit {
        Edit {
            path: "a".to_owned(),
            version,
            start,
            end,
            text: text.to_owned(),
        }
    }

    #[test]
    fn edits_change_the_text_in_the_order_of_their_versions() {
        let mut document = Document {
            version: 3,
            text: "größe".to_owned(),
        };
        document.apply(&edit(4, 0, 2, "G")).unwrap();
        assert_eq!(
            document,
            Document {
                version: 4,
                text: "Göße".to_owned()
            }
        );
        let before = document.clone();
        assert!(
            document.apply(&edit(6, 0, 0, "late")).is_err(),
            "5 is missing"
        );
        assert!(
            document.apply(&edit(5, 2, 3, "")).is_err(),
            "2 lies inside a character"
        );
        assert!(
            document.apply(&edit(5, 0, 99, "")).is_err(),
            "99 lies behind the end"
        );
        assert_eq!(document, before);
    }

    #[tokio::test]
    async fn diagnostics_wait_for_the_version_asked_for() {
        let documents = Documents::new();
        documents.open(OpenDocument {
            path: "a".to_owned(),
            version: 0,
            text: "ok".to_owned(),
        });
        let query = DiagnosticsQuery {
            path: "a".to_owned(),
            version: 1,
        };
        let (answer, ()) = tokio::join!(documents.diagnostics(&query), async {
            tokio::task::yield_now().await;
            documents.apply(&edit(1, 2, 2, " // TODO")).unwrap();
        });
        let answer = answer.unwrap();
        assert_eq!((answer.version, answer.findings.len()), (1, 1));
    }

    #[tokio::test]
    async fn document_that_is_not_open_is_not_found() {
        let query = DiagnosticsQuery {
            path: "a".to_owned(),
            version: 1,
        };
        assert!(matches!(
            Documents::new().diagnostics(&query).await,
            Err(Fault::NotFound(_))
        ));
    }
}
