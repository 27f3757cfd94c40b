//! Where things lie in a region.

/// Geometry of one region: sizes as agreed on in the handshake, offsets as in `docs/memory-map.md`.
///
/// A `Layout` is kept privately by each side and never read from shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    ring_capacity_bytes: u32,
    cancel_slots: u32,
    region_bytes: usize,
}

impl Layout {
    /// Smallest ring, in bytes.
    pub const MIN_RING_BYTES: u32 = 4096;
    /// Largest ring, in bytes: positions are 32 bits wide and a distance must stay unambiguous.
    pub const MAX_RING_BYTES: u32 = 1 << 30;
    /// Most cancel words.
    pub const MAX_CANCEL_SLOTS: u32 = 1 << 20;

    pub(super) const TAIL: usize = 128;
    pub(super) const HEAD: usize = 132;
    pub(super) const SLEEP: usize = 256;
    pub(super) const NOTIFIED: usize = 260;
    pub(super) const RING: usize = 1024;

    /// Returns the layout of a region with a ring of `ring_capacity_bytes` and `cancel_slots` words.
    ///
    /// # Errors
    ///
    /// [`LayoutError`] if a size is outside its limits or the capacity is not a power of two.
    pub fn new(ring_capacity_bytes: u32, cancel_slots: u32) -> Result<Self, LayoutError> {
        let in_range = (Self::MIN_RING_BYTES..=Self::MAX_RING_BYTES).contains(&ring_capacity_bytes);
        if !in_range || !ring_capacity_bytes.is_power_of_two() {
            return Err(LayoutError::RingCapacity {
                ring_capacity_bytes,
            });
        }
        if cancel_slots > Self::MAX_CANCEL_SLOTS {
            return Err(LayoutError::CancelSlots { cancel_slots });
        }
        let region_bytes =
            region_bytes(ring_capacity_bytes, cancel_slots).ok_or(LayoutError::AddressSpace {
                ring_capacity_bytes,
                cancel_slots,
            })?;
        Ok(Self {
            ring_capacity_bytes,
            cancel_slots,
            region_bytes,
        })
    }

    /// Returns the size of the whole region, a multiple of 4096.
    pub fn region_bytes(&self) -> usize {
        self.region_bytes
    }

    /// Returns the size of the ring, a power of two.
    #[inline]
    pub fn ring_capacity_bytes(&self) -> u32 {
        self.ring_capacity_bytes
    }

    /// Returns between which offsets there is nothing that a quiet connection needs: all behind the first page, of `page_bytes`. That is ring
    /// data and cancel words, which are hints. `None` if there is nothing.
    pub(super) fn idle_pages(&self, page_bytes: usize) -> Option<(usize, usize)> {
        (page_bytes < self.region_bytes).then_some((page_bytes, self.region_bytes))
    }

    /// Returns how much of every ring lies on the first page of its region, with the words: what is never given back to the system.
    #[cfg(not(loom))]
    pub fn lasting_ring_bytes() -> u32 {
        u32::try_from(crate::sys::page_bytes() - Self::RING).unwrap_or(u32::MAX)
    }

    /// Returns the number of cancel words.
    #[inline]
    pub fn cancel_slots(&self) -> u32 {
        self.cancel_slots
    }

    /// Returns the offset of the cancel word of `slot`, or `None` if there is no such slot.
    pub(super) fn cancel_offset(&self, slot: u32) -> Option<usize> {
        // No overflow: `region_bytes` has added up more than this.
        (slot < self.cancel_slots)
            .then(|| Self::RING + self.ring_capacity_bytes as usize + 4 * slot as usize)
    }
}

fn region_bytes(ring_capacity_bytes: u32, cancel_slots: u32) -> Option<usize> {
    let ring = usize::try_from(ring_capacity_bytes).ok()?;
    let cancel = usize::try_from(cancel_slots).ok()?.checked_mul(4)?;
    Layout::RING
        .checked_add(ring)?
        .checked_add(cancel)?
        .checked_next_multiple_of(4096)
}

/// Why a region cannot have the sizes asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The ring is too small, too large, or not a power of two.
    #[error("a ring of {ring_capacity_bytes} bytes is not a power of two from 4 KiB to 1 GiB")]
    RingCapacity {
        /// Size that was asked for.
        ring_capacity_bytes: u32,
    },
    /// There are more cancel words than calls can be in flight.
    #[error(
        "{cancel_slots} cancel words are more than {}",
        Layout::MAX_CANCEL_SLOTS
    )]
    CancelSlots {
        /// Number that was asked for.
        cancel_slots: u32,
    },
    /// The region does not fit into this machine's address space.
    #[error(
        "a ring of {ring_capacity_bytes} bytes with {cancel_slots} cancel words does not fit the address space"
    )]
    AddressSpace {
        /// Size that was asked for.
        ring_capacity_bytes: u32,
        /// Number that was asked for.
        cancel_slots: u32,
    },
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn region_is_the_sum_of_its_parts_rounded_to_pages() {
        let layout = Layout::new(4096, 0).unwrap();
        assert_eq!(layout.region_bytes(), 8192);
        let layout = Layout::new(1 << 20, 1024).unwrap();
        assert_eq!(layout.region_bytes(), (1 << 20) + 8192);
        assert_eq!(layout.cancel_offset(1023), Some(1024 + (1 << 20) + 4092));
        assert_eq!(layout.cancel_offset(1024), None);
    }

    #[test]
    fn pages_that_can_be_given_back_begin_after_the_first() {
        let layout = Layout::new(256 << 10, 1024).unwrap();
        assert_eq!(layout.idle_pages(4096), Some((4096, layout.region_bytes())));
        assert_eq!(Layout::new(4096, 0).unwrap().idle_pages(16384), None);
    }

    #[test]
    fn sizes_outside_the_limits_are_refused() {
        for ring in [0, 1, 2048, 4097, 6144, (1 << 30) + 1, 1 << 31, u32::MAX] {
            assert!(Layout::new(ring, 0).is_err(), "{ring}");
        }
        assert!(Layout::new(4096, u32::MAX).is_err());
        assert!(Layout::new(1 << 30, 1 << 20).is_ok());
    }
}
