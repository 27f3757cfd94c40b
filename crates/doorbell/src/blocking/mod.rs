//! The same client and server for programs without a runtime: threads that call, and threads that sleep on a futex.
