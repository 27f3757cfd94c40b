//! The shapes that a call can have, as types: each shape has methods of its own.

/// Shape of a call: one reply.
#[derive(Debug)]
pub struct Unary;
/// Shape of a call: a stream of items from the server.
#[derive(Debug)]
pub struct Streaming;
/// Shape of a call: a stream of items from the client, one reply.
#[derive(Debug)]
pub struct Uploading;
/// Shape of a call: a stream of items in each direction.
#[derive(Debug)]
pub struct Bidirectional;
