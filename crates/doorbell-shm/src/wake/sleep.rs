//! The sleep word, from both sides.

use crate::memory::{OwnMemory, OwnRegion, PeerMemory, PeerRegion};
use crate::sync::{Ordering, fence_at, kept};

/// What a side sleeps on, and so how it is to be notified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SleepOn {
    /// A futex on the word in which the other side writes which sleep it has notified: [`PeerRegion::wait`], woken by
    /// `OwnRegion::wake`.
    Futex,
    /// A doorbell descriptor.
    Doorbell,
}

/// Tells the peer that we are about to sleep. Owns our sleep word.
///
/// Announce, look once more at everything the sleep is about, and only then sleep; afterwards withdraw
/// or announce anew. See [the module](crate::wake) for why.
#[derive(Debug)]
pub struct Announcer<O = OwnRegion> {
    own: O,
    number: u32,
    announced: bool,
    space: bool,
}

impl<O: OwnMemory> Announcer<O> {
    /// Returns the owner of the sleep word in `own`, awake.
    pub fn new(own: O) -> Self {
        Self {
            own,
            number: 0,
            announced: false,
            space: false,
        }
    }

    /// Announces a sleep: from here on the peer notifies, once, when it publishes a record, and with
    /// `space` also when it consumes one.
    ///
    /// The caller **must** look once more at the peer's positions before it sleeps. Announcing again is
    /// a new sleep and earns a new notification. Returns the number of the sleep.
    pub fn announce(&mut self, on: SleepOn, space: bool) -> u32 {
        if kept("announce-number") || self.number == 0 {
            self.number = self.number.wrapping_add(1) & NUMBER_MASK;
        }
        self.announced = true;
        self.space = space;
        let space = if kept("announce-space") { space } else { false };
        crate::failpoint!("sleep.announce.before");
        self.own.store_sleep(encode(self.number, on, space));
        // Closes the race of this announcement with the peer's publishing: orders our sleep word
        // before the positions that the caller loads next. Pairs with the fence in `Notifier`.
        fence_at("announce-fence", Ordering::SeqCst);
        crate::failpoint!("sleep.announce.after");
        self.number
    }

    /// Takes the announcement back: we are awake and look by ourselves.
    ///
    /// A notification may be under way all the same; the next sleep then ends early.
    pub fn withdraw(&mut self) {
        if self.announced {
            self.announced = false;
            self.space = false;
            self.own.store_sleep(self.number << NUMBER_SHIFT | AWAKE);
            crate::failpoint!("sleep.withdraw.after");
        }
    }

    /// Returns `true` between [`announce`](Self::announce) and [`withdraw`](Self::withdraw).
    #[inline]
    pub fn is_announced(&self) -> bool {
        self.announced
    }

    /// Returns `true` if the announced sleep also ends when the peer consumes something.
    #[inline]
    pub fn wants_space(&self) -> bool {
        self.space
    }
}

/// Watches the peer's sleep word and says when a notification is due.
///
/// Call it after the positions have been stored. The caller notifies: a doorbell for
/// [`SleepOn::Doorbell`], `OwnRegion::wake` for [`SleepOn::Futex`].
#[derive(Debug)]
pub struct Notifier<O = OwnRegion, P = PeerRegion> {
    own: O,
    peer: P,
    /// Number of the last sleep that we have notified.
    notified: u32,
}

impl<O: OwnMemory, P: PeerMemory> Notifier<O, P> {
    /// Returns the watcher of the sleep word in `peer`, which tells in `own` what it has notified.
    pub fn new(own: O, peer: P) -> Self {
        Self {
            own,
            peer,
            notified: 0, // the first sleep has number 1
        }
    }

    /// Returns how to notify the peer that our tail has moved, or `None` if it need not be.
    #[inline]
    pub fn after_publish(&mut self) -> Option<SleepOn> {
        self.after_publish_and_release(true, false)
    }

    /// Returns how to notify the peer that our head has moved, or `None` if it does not wait for that.
    #[inline]
    pub fn after_release(&mut self) -> Option<SleepOn> {
        self.after_publish_and_release(false, true)
    }

    /// Returns how to notify the peer of whatever has moved, paying for the fence once.
    #[inline]
    pub fn after_publish_and_release(
        &mut self,
        published: bool,
        released: bool,
    ) -> Option<SleepOn> {
        if !published && !released {
            return None;
        }
        // Closes the race of what we have just published with the peer's going to sleep: orders our
        // positions before the peer's sleep word. Pairs with the fence in `Announcer::announce`.
        fence_at("notify-fence", Ordering::SeqCst);
        let word = self.peer.load_sleep();
        let on = decode(word)?;
        if !published && word & SPACE == 0 {
            return None;
        }
        let number = word >> NUMBER_SHIFT;
        if number == self.notified && kept("notify-once") {
            return None;
        }
        self.notified = number;
        crate::failpoint!("wake.due");
        // The sleeper may have announced itself and not be asleep yet, and may have seen all that we are telling it of. It then
        // finds by this word that its sleep has been used up.
        if kept("store-notified") {
            self.own.store_notified(number);
        }
        crate::failpoint!("wake.told");
        Some(on)
    }
}

const AWAKE: u32 = 0;
const ON_FUTEX: u32 = 1;
const ON_DOORBELL: u32 = 2;
const MODE_MASK: u32 = 3;
const SPACE: u32 = 4;
const NUMBER_SHIFT: u32 = 3;
const NUMBER_MASK: u32 = u32::MAX >> NUMBER_SHIFT;

fn encode(number: u32, on: SleepOn, space: bool) -> u32 {
    let mode = match on {
        SleepOn::Futex => ON_FUTEX,
        SleepOn::Doorbell => ON_DOORBELL,
    };
    number << NUMBER_SHIFT | (if space { SPACE } else { 0 }) | mode
}

/// Returns what the peer sleeps on; a mode that does not exist counts as awake.
#[inline]
fn decode(word: u32) -> Option<SleepOn> {
    match word & MODE_MASK {
        ON_FUTEX => Some(SleepOn::Futex),
        ON_DOORBELL => Some(SleepOn::Doorbell),
        _ => None,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::memory::HeapRegion;

    fn pair() -> (Announcer<HeapRegion>, Notifier<HeapRegion, HeapRegion>) {
        let region = HeapRegion::new(4096);
        let notifier = Notifier::new(HeapRegion::new(4096), region.clone());
        (Announcer::new(region), notifier)
    }

    #[test]
    fn peer_is_notified_once_per_sleep_and_only_while_it_sleeps() {
        let (mut announcer, mut notifier) = pair();
        assert_eq!(notifier.after_publish(), None);
        announcer.announce(SleepOn::Doorbell, false);
        assert_eq!(notifier.after_publish(), Some(SleepOn::Doorbell));
        assert_eq!(notifier.after_publish(), None);
        announcer.announce(SleepOn::Futex, false);
        assert_eq!(notifier.after_publish(), Some(SleepOn::Futex));
        announcer.announce(SleepOn::Futex, false);
        announcer.withdraw();
        assert_eq!(notifier.after_publish(), None);
    }

    #[test]
    fn release_notifies_only_who_waits_for_space() {
        let (mut announcer, mut notifier) = pair();
        announcer.announce(SleepOn::Futex, false);
        assert_eq!(notifier.after_release(), None);
        assert_eq!(
            notifier.after_publish(),
            Some(SleepOn::Futex),
            "the number was not used up"
        );
        announcer.announce(SleepOn::Futex, true);
        assert!(announcer.wants_space());
        assert_eq!(notifier.after_release(), Some(SleepOn::Futex));
        assert_eq!(notifier.after_publish_and_release(true, true), None);
        assert_eq!(notifier.after_publish_and_release(false, false), None);
    }

    #[test]
    fn numbers_wrap_without_touching_the_mode() {
        let (mut announcer, mut notifier) = pair();
        announcer.number = NUMBER_MASK;
        notifier.notified = NUMBER_MASK;
        announcer.announce(SleepOn::Doorbell, true);
        assert_eq!(announcer.number, 0);
        assert_eq!(notifier.after_release(), Some(SleepOn::Doorbell));
    }

    #[test]
    fn any_word_of_a_hostile_peer_is_survived() {
        let region = HeapRegion::new(4096);
        let mut notifier = Notifier::new(HeapRegion::new(4096), region.clone());
        for word in [0, 3, 7, u32::MAX, u32::MAX - 1, 5, 8, 9] {
            region.store_sleep(word);
            let _ = notifier.after_publish_and_release(true, true);
        }
    }
}
