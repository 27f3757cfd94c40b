//! Shared memory, rings, doorbells and waking.

pub mod memory;
pub mod ring;
#[cfg(not(loom))]
pub mod sys;
pub mod wake;

mod sync;

#[cfg(all(test, loom))]
mod loom_tests;
