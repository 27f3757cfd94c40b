//! Every maximum of the protocol, with its reason.
//!
//! A peer chooses nothing that is not bounded by a number on this page or by a [`Config`](crate::connection::Config) that was checked
//! against one. Sizes are in bytes.

/// Calls in flight on one connection unless the server says otherwise.
///
/// A call under way costs a slot of 32 bytes on each side; a thousand is more than any client program has threads or
/// tasks waiting at one server in practice.
pub const MAX_CALLS_DEFAULT: u32 = 1024;

/// Highest number of calls in flight a server may announce.
///
/// The slot table of a connection then takes 2 MiB, which a hostile client can make the server allocate.
pub const MAX_CALLS_HIGHEST: u32 = 65_536;

/// Largest message accepted unless configured.
///
/// Large enough for a 4K frame of video uncompressed (33 MiB), small enough that a few of them do not hurt.
pub const DEFAULT_MAX_MESSAGE_BYTES: u64 = 64 << 20;

/// Sum of the announced sizes of all divided messages under assembly on one connection.
///
/// Four messages of the default maximum at once. Memory is reserved when the first frame arrives, so this is what a peer can
/// make us hold without finishing anything.
pub const DEFAULT_MAX_ASSEMBLY_BYTES: u64 = 256 << 20;

/// Bytes of one stream and direction that may be under way and not yet consumed.
///
/// Sixteen chunks of the default size: the sender keeps going while the receiver works.
pub const DEFAULT_WINDOW_BYTES: u32 = 256 << 10;

/// Smallest window a handshake accepts: below it every item would wait for credit.
pub const MIN_WINDOW_BYTES: u32 = 1024;

/// Highest credit a stream may hold, and so the largest window: positive numbers of 32 bits with sign.
pub const MAX_CREDIT_BYTES: u32 = i32::MAX as u32;

/// Most entries in a metadata block. Metadata is for trace contexts and tokens, not for payload.
pub const MAX_METADATA_ENTRIES: usize = 64;

/// Largest metadata block. It is never divided, so that small rings permit less: prefix, block and a byte of payload have to fit in
/// one chunk.
pub const MAX_METADATA_BYTES: usize = 16_384;

/// Longest metadata key: its length is written in one byte.
pub const MAX_METADATA_KEY_BYTES: usize = 255;

/// Longest text in a `GOAWAY` frame: one line for a log.
pub const MAX_GOAWAY_TEXT_BYTES: usize = 1024;

/// Longest text in an `ERROR` frame. Longer texts are cut when they are written and refused when they are read.
pub const MAX_ERROR_TEXT_BYTES: usize = 4096;

/// Largest details in an `ERROR` frame: an `ERROR` is never divided, so it has to fit into one chunk with the rest.
pub const MAX_ERROR_DETAILS_BYTES: usize = 16_384;

/// Largest body of one frame unless the rings are small.
///
/// A small call waits for a few chunks of somebody else's large message at most; 16 KiB take about 1 µs to copy.
pub const DEFAULT_MAX_CHUNK_BYTES: u32 = 16 << 10;

/// Smallest chunk size a handshake accepts: a quarter of the smallest ring, less a header.
pub const MIN_CHUNK_BYTES: u32 = 1000;

/// Smallest ring: one page.
pub const MIN_RING_BYTES: u32 = 4096;

/// Largest ring. Positions are compared by wrapping distance, which needs headroom in 32 bits.
pub const MAX_RING_BYTES: u32 = 1 << 30;

/// Ring size when neither side has a wish: sixteen chunks.
pub const DEFAULT_RING_BYTES: u32 = 256 << 10;

/// Segments for loans that one side may write on one connection: each is a mapping in both processes.
///
/// With sizes that grow with what is asked for, a few are enough for any pool within [`DEFAULT_MAX_LOAN_BYTES`].
pub const MAX_SEGMENTS: usize = 64;

/// Blocks of one direction that may be with the peer at once. A receiver keeps 8 bytes for each; a sender beyond it copies.
pub const MAX_LOANS: usize = 4096;

/// Segments are made of pages of this size.
pub const SEGMENT_PAGE_BYTES: u32 = 4096;

/// Largest segment, in pages: 1 GiB, as the largest ring. Offsets in it fit into 32 bits.
pub const MAX_SEGMENT_PAGES: u32 = 1 << 18;

/// Blocks begin at a multiple of this, so that any type can lie at the beginning of one: a cache line.
pub const LOAN_ALIGNMENT: u32 = 64;

/// Smallest segment that a server makes for a wish: one that is smaller would soon be followed by the next.
pub const MIN_SEGMENT_BYTES: u64 = 256 << 10;

/// Memory for loans on one connection, both directions together, unless configured: two messages of the default maximum each way.
pub const DEFAULT_MAX_LOAN_BYTES: u64 = 256 << 20;

/// Memory for loans of all connections of one server unless configured: a few connections that use all that one may have.
pub const DEFAULT_MAX_TOTAL_LOAN_BYTES: u64 = 1 << 30;

/// Largest handshake message, framing included. All fields together need less than 600 bytes.
pub const MAX_HANDSHAKE_BYTES: usize = 4096;

/// Longest name a client gives itself; it appears in the server's logs and metrics.
pub const MAX_CLIENT_NAME_BYTES: usize = 64;

/// Longest explanation of a refusal.
pub const MAX_REFUSAL_TEXT_BYTES: usize = 512;

/// Longest time to a deadline: a longer one, which may come from the peer, counts as this. Clocks can add it without overflow.
pub const MAX_DEADLINE: std::time::Duration =
    std::time::Duration::from_secs(10 * 365 * 24 * 60 * 60);
