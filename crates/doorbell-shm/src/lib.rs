//! Shared memory, rings, doorbells and waking.
