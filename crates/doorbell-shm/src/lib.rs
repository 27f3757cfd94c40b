//! Shared memory, rings, doorbells and waking.

pub mod sys;
