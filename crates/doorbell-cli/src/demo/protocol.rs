//! What the editor and the engine say to each other. The messages are the same on Doorbell and on the baseline's socket.

use doorbell::{Message, MessageType, Raw, Upload};
use serde::{Deserialize, Serialize};

/// Asks for the bytes of a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OpenFile {
    /// Path below the root, with `/` between its parts.
    pub(crate) path: String,
}

/// Asks for all lines of the tree that match; hits stream as they are found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Search {
    /// Regular expression in ripgrep's syntax.
    pub(crate) pattern: String,
}

/// One line that matches a [`Search`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Hit {
    /// Path below the root.
    pub(crate) path: String,
    /// Line number, from 1.
    pub(crate) line: u64,
    /// The line, cut after [`Hit::MAX_TEXT_BYTES`].
    pub(crate) text: String,
}

impl Hit {
    /// Longest text of a hit; a minified file is one line of megabytes.
    pub(crate) const MAX_TEXT_BYTES: usize = 400;
}

/// Asks for tokens that continue the text at a position.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Complete {
    /// File in which the user types.
    pub(crate) path: String,
    /// Bytes before the cursor.
    pub(crate) offset: u64,
    /// Text just before the cursor.
    pub(crate) prefix: String,
    /// Chooses among the likely continuations: the same seed gives the same tokens.
    pub(crate) seed: u64,
    /// Tokens wanted; `None` for as many as the user will read.
    pub(crate) max_tokens: Option<u32>,
}

/// One token of a completion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Token {
    /// Text of the token.
    pub(crate) text: String,
}

/// Hands the editor's text of a document to the engine, before the first [`Edit`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OpenDocument {
    /// Document.
    pub(crate) path: String,
    /// Version of `text`; each edit counts it up by one.
    pub(crate) version: u64,
    /// The whole text.
    pub(crate) text: String,
}

/// Answer to [`OpenDocument`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DocumentOpened {
    /// Hash of the text that the engine holds now.
    pub(crate) hash: u128,
}

/// One change of an open document. Nothing answers it; [`DiagnosticsQuery`] shows whether it arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Edit {
    /// Document.
    pub(crate) path: String,
    /// Version after the edit.
    pub(crate) version: u64,
    /// First byte that goes.
    pub(crate) start: u64,
    /// End of the bytes that go.
    pub(crate) end: u64,
    /// Text that comes instead.
    pub(crate) text: String,
}

/// Opens the stream of [`DiagnosticsQuery`] in one direction and [`Diagnostics`] in the other.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Diagnose {}

/// Asks for the diagnostics of a document as soon as the engine has a version of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DiagnosticsQuery {
    /// Document.
    pub(crate) path: String,
    /// Version to wait for.
    pub(crate) version: u64,
}

/// What the engine has to say about one version of a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Diagnostics {
    /// Document.
    pub(crate) path: String,
    /// Version that was looked at.
    pub(crate) version: u64,
    /// Hash of the text that was looked at.
    pub(crate) hash: u128,
    /// Findings, in the order of their lines.
    pub(crate) findings: Vec<Finding>,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Finding {
    /// Line number, from 1.
    pub(crate) line: u64,
    /// What is the matter.
    pub(crate) kind: FindingKind,
}

/// Kinds of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FindingKind {
    /// A word such as `TODO` marks unfinished work.
    UnfinishedWork,
    /// White space before the end of the line.
    TrailingWhitespace,
    /// More than 120 characters.
    LongLine,
    /// Tabs and spaces mixed in the indentation.
    MixedIndentation,
    /// A closing bracket that nothing opened, or of another kind.
    UnmatchedBracket,
}

/// Asks what the engine has done, once no stream of the given kind runs any more.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct AwaitIdle {
    /// Streams to wait for.
    pub(crate) kind: StreamKind,
}

/// Streams that the engine counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StreamKind {
    /// [`Search`].
    Search,
    /// [`Complete`].
    Complete,
}

/// Answer to [`AwaitIdle`]: what has happened to the streams of one kind since the engine started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StreamCounts {
    /// Streams begun.
    pub(crate) started: u64,
    /// Streams that sent all they had.
    pub(crate) finished: u64,
    /// Streams that stopped because the editor dropped them.
    pub(crate) cancelled: u64,
    /// Items made, sent or not.
    pub(crate) items: u64,
}

/// Asks what the engine knows of the tree.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Describe {}

/// Answer to [`Describe`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Description {
    /// Process id of the engine.
    pub(crate) pid: u32,
    /// Tokens from which the model was built.
    pub(crate) model_tokens: u64,
    /// Equal for equal models.
    pub(crate) model_fingerprint: u128,
    /// Edits that did not follow the version before them.
    pub(crate) edits_out_of_order: u64,
}

macro_rules! messages {
    ($($number:literal $message:ident -> $reply:ty;)*) => {
        $(impl Message for $message {
            const TYPE: MessageType = MessageType::new($number);
            type Reply = $reply;
        })*
    };
}

messages! {
    1 OpenFile -> Raw;
    2 Search -> Hit;
    3 Complete -> Token;
    4 OpenDocument -> DocumentOpened;
    5 Edit -> ();
    6 Diagnose -> Diagnostics;
    7 AwaitIdle -> StreamCounts;
    8 Describe -> Description;
}

impl Upload for Diagnose {
    type Item = DiagnosticsQuery;
}
