//! What the editor and its engine say to each other. Both programs use this file.

use doorbell::{Message, MessageType, Raw, Upload};
use serde::{Deserialize, Serialize};

/// Asks for the bytes of a file. `Raw` bytes travel as they are.
#[derive(Serialize, Deserialize)]
pub(crate) struct OpenFile {
    pub(crate) path: String,
}

impl Message for OpenFile {
    const TYPE: MessageType = MessageType::new(1);
    type Reply = Raw;
}

/// Asks for the lines that contain a text; hits stream as they are found.
#[derive(Serialize, Deserialize)]
pub(crate) struct Search {
    pub(crate) text: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hit {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) text: String,
}

impl Message for Search {
    const TYPE: MessageType = MessageType::new(2);
    type Reply = Hit; // one item of the stream
}

/// Asks for words that may follow; they stream until the editor has enough.
#[derive(Serialize, Deserialize)]
pub(crate) struct Complete {
    pub(crate) last_word: String,
}

impl Message for Complete {
    const TYPE: MessageType = MessageType::new(3);
    type Reply = String;
}

/// Tells that the user has typed something. Nothing answers it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Edit {
    pub(crate) path: String,
    pub(crate) offset: usize,
    pub(crate) text: String,
}

impl Message for Edit {
    const TYPE: MessageType = MessageType::new(4);
    type Reply = ();
}

/// Opens a stream in both directions: paths to the engine, what is wrong there to the editor.
#[derive(Serialize, Deserialize)]
pub(crate) struct Diagnose {}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Diagnostics {
    pub(crate) path: String,
    pub(crate) bytes: usize,
    pub(crate) lines_with_todo: Vec<usize>,
}

impl Message for Diagnose {
    const TYPE: MessageType = MessageType::new(5);
    type Reply = Diagnostics;
}

impl Upload for Diagnose {
    type Item = String;
}
