//! Shared memory, rings, doorbells and waking.

#[cfg(doorbell_failpoints)]
pub mod failpoint;
pub mod memory;
pub mod ring;
#[cfg(not(loom))]
pub mod stall;
#[cfg(not(loom))]
pub mod sys;
pub mod wake;

mod sync;

#[cfg(not(loom))]
pub use memory::{AdoptError, ServerMemory, adopt, create};
pub use memory::{
    Kick, Layout, LayoutError, OwnRegion, PeerRegion, crc32c, crc32c_header, crc32c_record,
};
pub use ring::{Consumer, Corrupt, Producer, Reservation};
pub use wake::{Announcer, Brake, Notifier, SleepOn, Spin, SpinMode, SpinTurn};

/// Ends the process here if the environment asks for it: see `failpoint.rs`. Nothing at all without `--cfg doorbell_failpoints`.
#[cfg(not(doorbell_failpoints))]
#[doc(hidden)]
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {{}};
}

#[cfg(all(test, loom))]
mod loom_tests;
