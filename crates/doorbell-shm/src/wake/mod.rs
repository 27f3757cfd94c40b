//! Going to sleep and being woken, across processes, without a system call while both are awake.
//!
//! Each side has a *sleep word* in its own region. Who is about to sleep [announces](Announcer) it
//! there, who has published something [looks](Notifier) at the peer's word and notifies **once per
//! sleep**. This module decides whether a notification is due and how long to [spin](Spin) before
//! sleeping; it performs neither the notification nor the sleep. The word is specified in
//! `docs/memory-map.md`.
//!
//! # The race
//!
//! ```text
//! sleeper                              the other side
//! announce: store the sleep word       publish: store the tail
//!           fence(SeqCst)              after_publish: fence(SeqCst)
//! look once more: load the tail                       load the sleep word
//! sleep if there is nothing            notify if it is up
//! ```
//!
//! Both sides store one word and then load the other's. Without the fences each load may be done
//! before its own side's store is visible: the sleeper misses the record, the other side misses the
//! sleeper, and nobody ever wakes. With a fence on *both* sides at least one of the two sees the
//! other. Release and acquire do not give that. The look after the announcement is therefore not an
//! optimisation, and neither fence may be left out on any machine.
//!
//! # Once per sleep
//!
//! The sleep word carries a number that grows with every announcement, and the other side remembers the
//! last number it has notified. So a burst of records costs one notification, and a sleeper that has
//! been woken, has drained the ring and sleeps again is notified again.
//!
//! A notification may come between the announcement and the sleep, for something that the sleeper had taken before it announced
//! itself: the other side has published, the sleeper has taken it and gone to sleep, and only then does the other side look. Its
//! notification uses the number up. So it must not get lost, or what is published next wakes nobody. A doorbell remembers that it was
//! rung. A futex remembers nothing, and no position has changed that it could compare; so the other side writes the number into its own
//! region before it wakes, and that word is what the sleeper sleeps on. (Sleeping on the position words themselves, as is done
//! where every publication wakes, is not enough here.)
//!
//! # Trust
//!
//! A peer that lies in its sleep word harms itself (it is not woken) or costs us one notification for
//! each record we publish. Neither blocks us.

mod brake;
mod sleep;
mod spin;

pub use brake::Brake;
pub use sleep::{Announcer, Notifier, SleepOn};
pub use spin::{Spin, SpinMode, SpinTurn};
