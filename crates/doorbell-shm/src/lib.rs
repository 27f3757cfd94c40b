//! Shared memory, rings, doorbells and waking.

pub mod memory;
pub mod ring;
#[cfg(not(loom))]
pub mod sys;
pub mod wake;

mod sync;

#[cfg(not(loom))]
pub use memory::{AdoptError, ServerMemory, adopt, create};
pub use memory::{Kick, Layout, LayoutError, OwnRegion, PeerRegion, crc32c, crc32c_header};
pub use ring::{Consumer, Corrupt, Producer, Reservation};
pub use wake::{Announcer, Notifier, SleepOn, Spin, SpinMode, SpinTurn};

#[cfg(all(test, loom))]
mod loom_tests;
