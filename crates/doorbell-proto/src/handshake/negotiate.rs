//! How the two sides settle on numbers.

use super::{BellKinds, Features, Hello, OfferError, RefuseReason, Refused, VersionRange, Welcome};
use crate::frame::HEADER_BYTES;
use crate::limits::{
    DEFAULT_MAX_CHUNK_BYTES, DEFAULT_MAX_MESSAGE_BYTES, DEFAULT_RING_BYTES, DEFAULT_WINDOW_BYTES,
    MAX_CALLS_DEFAULT, MAX_CALLS_HIGHEST, MAX_CREDIT_BYTES, MAX_RING_BYTES, MIN_CHUNK_BYTES,
    MIN_RING_BYTES, MIN_WINDOW_BYTES,
};

/// What a server is ready to agree to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerOffer {
    /// Versions the server speaks.
    pub versions: VersionRange,
    /// Features the server has.
    pub features: Features,
    /// Ring size for a client without a wish.
    pub ring_capacity_bytes: u32,
    /// Largest ring a client can wish for.
    pub max_ring_capacity_bytes: u32,
    /// Calls in flight at once.
    pub max_calls: u32,
    /// Bytes of items per stream that a client may send ahead.
    pub receive_window_bytes: u32,
    /// Largest message the server accepts.
    pub max_message_bytes: u64,
    /// Doorbells the server has.
    pub bells: BellKinds,
}

impl Default for ServerOffer {
    /// The defaults of [`limits`](crate::limits), rings of at most 64 MiB, both bells, no features.
    fn default() -> Self {
        Self {
            versions: super::VERSIONS,
            features: Features::NONE,
            ring_capacity_bytes: DEFAULT_RING_BYTES,
            max_ring_capacity_bytes: 64 << 20,
            max_calls: MAX_CALLS_DEFAULT,
            receive_window_bytes: DEFAULT_WINDOW_BYTES,
            max_message_bytes: DEFAULT_MAX_MESSAGE_BYTES,
            bells: BellKinds::EVENT_FD.with(BellKinds::SOCKET),
        }
    }
}

/// Returns what the server answers to `hello`.
///
/// # Errors
///
/// [`Refused`], ready to be sent, if there is no common version or doorbell or a number of the client is out of bounds.
pub fn negotiate(hello: &Hello, offer: &ServerOffer) -> Result<Welcome, Refused> {
    let refused = |reason, text: &str| Refused {
        reason,
        versions: offer.versions,
        text: text.to_owned(),
    };
    let version = offer.versions.common(hello.versions);
    let version = version.ok_or_else(|| {
        refused(
            RefuseReason::Version,
            &format!("the client speaks {}", hello.versions),
        )
    })?;
    if !is_window(hello.receive_window_bytes) || hello.max_message_bytes == 0 {
        return Err(refused(
            RefuseReason::Malformed,
            "window or message size out of bounds",
        ));
    }
    let bell = offer.bells.best_common(hello.bells);
    let bell = bell.ok_or_else(|| refused(RefuseReason::Policy, "no common doorbell"))?;
    let ring_capacity_bytes = ring_capacity(hello.ring_capacity_bytes, offer);
    Ok(Welcome {
        version,
        features: offer
            .features
            .common(hello.features)
            .common(Features::KNOWN),
        server_ring_capacity_bytes: ring_capacity_bytes,
        client_ring_capacity_bytes: ring_capacity_bytes,
        max_calls: offer.max_calls.clamp(1, MAX_CALLS_HIGHEST),
        receive_window_bytes: offer
            .receive_window_bytes
            .clamp(MIN_WINDOW_BYTES, MAX_CREDIT_BYTES),
        max_message_bytes: offer.max_message_bytes.max(1),
        max_chunk_bytes: chunk_bytes_for_ring(ring_capacity_bytes),
        bell,
    })
}

impl Welcome {
    /// Checks, on the client, that the server has kept to the rules and to what `hello` said.
    ///
    /// # Errors
    ///
    /// [`OfferError`] names the first number that is not acceptable.
    pub fn check(&self, hello: &Hello) -> Result<(), OfferError> {
        if !hello.versions.contains(self.version) {
            return Err(OfferError::Version {
                chosen: self.version,
                ours: hello.versions,
            });
        }
        if !hello.features.contains(self.features) {
            return Err(OfferError::Features {
                chosen: self.features,
                ours: hello.features,
            });
        }
        if !hello.bells.contains(self.bell) {
            return Err(OfferError::Bell { chosen: self.bell });
        }
        let smaller_ring = self
            .server_ring_capacity_bytes
            .min(self.client_ring_capacity_bytes);
        let max_chunk = largest_chunk(smaller_ring);
        let chunk_fits = (MIN_CHUNK_BYTES..=max_chunk).contains(&self.max_chunk_bytes);
        bound(
            "server_ring_capacity_bytes",
            self.server_ring_capacity_bytes,
            is_ring(self.server_ring_capacity_bytes),
        )?;
        bound(
            "client_ring_capacity_bytes",
            self.client_ring_capacity_bytes,
            is_ring(self.client_ring_capacity_bytes),
        )?;
        bound(
            "max_calls",
            self.max_calls,
            (1..=MAX_CALLS_HIGHEST).contains(&self.max_calls),
        )?;
        bound(
            "receive_window_bytes",
            self.receive_window_bytes,
            is_window(self.receive_window_bytes),
        )?;
        bound(
            "max_message_bytes",
            self.max_message_bytes,
            self.max_message_bytes != 0,
        )?;
        bound("max_chunk_bytes", self.max_chunk_bytes, chunk_fits)
    }
}

/// Returns the chunk size that a server chooses for rings of this capacity.
pub fn chunk_bytes_for_ring(capacity_bytes: u32) -> u32 {
    largest_chunk(capacity_bytes).clamp(MIN_CHUNK_BYTES, DEFAULT_MAX_CHUNK_BYTES)
}

/// Returns the largest chunk that a ring takes: a record occupies at most a quarter of it.
fn largest_chunk(capacity_bytes: u32) -> u32 {
    (capacity_bytes / 4).saturating_sub(HEADER)
}

/// Returns the client's wish, made a power of two within the bounds.
fn ring_capacity(wish_bytes: u32, offer: &ServerOffer) -> u32 {
    let wish_bytes = if wish_bytes == 0 {
        offer.ring_capacity_bytes
    } else {
        wish_bytes
    };
    let max_bytes = power_of_two_below(
        offer
            .max_ring_capacity_bytes
            .clamp(MIN_RING_BYTES, MAX_RING_BYTES),
    );
    wish_bytes
        .clamp(MIN_RING_BYTES, max_bytes)
        .checked_next_power_of_two()
        .unwrap_or(max_bytes)
}

fn power_of_two_below(bytes: u32) -> u32 {
    bytes
        .checked_ilog2()
        .map_or(MIN_RING_BYTES, |exponent| 1 << exponent)
}

fn is_ring(bytes: u32) -> bool {
    bytes.is_power_of_two() && (MIN_RING_BYTES..=MAX_RING_BYTES).contains(&bytes)
}

fn is_window(bytes: u32) -> bool {
    (MIN_WINDOW_BYTES..=MAX_CREDIT_BYTES).contains(&bytes)
}

fn bound(field: &'static str, value: impl Into<u64>, valid: bool) -> Result<(), OfferError> {
    if valid {
        Ok(())
    } else {
        Err(OfferError::OutOfBounds {
            field,
            value: value.into(),
        })
    }
}

const HEADER: u32 = HEADER_BYTES as u32;
