//! Credit of one call: how many bytes of items each side may still send.
//!
//! Both directions live here because bidirectional calls need both. The credit we may spend is counted when an item is begun, all of
//! it at once; the credit the peer may spend is counted frame by frame as they arrive. The two agree at every end of an item.

use crate::limits::MAX_CREDIT_BYTES;

/// The windows of one call.
#[derive(Debug)]
pub(super) struct Credit {
    /// What we may still send; below zero by at most one item.
    send_bytes: i64,
    /// The most that we may have been given to send at once, so far.
    send_limit_bytes: i64,
    /// What the peer may still send.
    receive_bytes: i64,
    /// Size of the window the peer began with.
    window_bytes: u32,
    /// Arrived, but not taken by the application.
    unconsumed_bytes: u64,
    /// Taken by the application, but not granted again.
    owed_bytes: u64,
    /// We have items to send.
    pub(super) sending: bool,
    /// The peer has items to send.
    pub(super) receiving: bool,
}

/// The credit left was not enough: what was left.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) i64);

impl Credit {
    /// Returns the credit of a call in which we send items, the peer does, or both.
    pub(super) fn new(sending: Option<u32>, receiving: Option<u32>) -> Self {
        let window_bytes = receiving.unwrap_or(0);
        Self {
            send_bytes: i64::from(sending.unwrap_or(0)),
            send_limit_bytes: i64::from(sending.unwrap_or(0)),
            receive_bytes: i64::from(window_bytes),
            window_bytes,
            unconsumed_bytes: 0,
            owed_bytes: 0,
            sending: sending.is_some(),
            receiving: receiving.is_some(),
        }
    }

    /// Takes the cost of an item we are about to send.
    pub(super) fn spend(&mut self, cost_bytes: u64) -> Result<(), Refused> {
        if self.send_bytes <= 0 {
            return Err(Refused(self.send_bytes));
        }
        self.send_bytes = self.send_bytes.saturating_sub(signed(cost_bytes));
        Ok(())
    }

    /// Takes back a part of what was spent, because it was not sent.
    pub(super) fn refund(&mut self, saved_bytes: u64) {
        self.send_bytes = self.send_bytes.saturating_add(signed(saved_bytes));
    }

    /// Returns `true` if [`spend`](Self::spend) would not be refused.
    pub(super) fn may_spend(&self) -> bool {
        self.send_bytes > 0
    }

    /// Adds what the peer granted. Returns `true` if that ends a shortage.
    pub(super) fn granted(&mut self, granted_bytes: u32) -> Result<bool, Refused> {
        let credit = self.send_bytes.saturating_add(i64::from(granted_bytes));
        if credit > i64::from(MAX_CREDIT_BYTES) {
            return Err(Refused(self.send_bytes));
        }
        let was_short = self.send_bytes <= 0;
        self.send_bytes = credit;
        Ok(was_short && credit > 0)
    }

    /// Returns by how much the peer has raised what we may send at once, which is by nothing if it grants what it has taken.
    #[inline]
    pub(super) fn take_rise(&mut self) -> u64 {
        let rise = self.send_bytes.saturating_sub(self.send_limit_bytes);
        let rise = u64::try_from(rise).unwrap_or(0);
        self.send_limit_bytes = self.send_limit_bytes.max(self.send_bytes);
        rise
    }

    /// Takes the cost of the first frame of an item from the peer.
    pub(super) fn begin_item(&mut self, cost_bytes: u64) -> Result<(), Refused> {
        if self.receive_bytes <= 0 {
            return Err(Refused(self.receive_bytes));
        }
        self.continue_item(cost_bytes);
        Ok(())
    }

    /// Takes the cost of a later frame of an item from the peer.
    pub(super) fn continue_item(&mut self, cost_bytes: u64) {
        self.receive_bytes = self.receive_bytes.saturating_sub(signed(cost_bytes));
    }

    /// Notes that an item is complete and about to be handed to the application.
    pub(super) fn item_complete(&mut self, cost_bytes: u64) {
        self.unconsumed_bytes = self.unconsumed_bytes.saturating_add(cost_bytes);
    }

    /// Notes that the application has taken items. Returns `true` if it is time to grant credit: once half a window is owed,
    /// and only while the peer has items to send.
    pub(super) fn consumed(&mut self, cost_bytes: u64) -> bool {
        let cost_bytes = cost_bytes.min(self.unconsumed_bytes);
        self.unconsumed_bytes = self.unconsumed_bytes.saturating_sub(cost_bytes);
        self.owed_bytes = self.owed_bytes.saturating_add(cost_bytes);
        self.receiving && self.is_due()
    }

    /// Takes what is to be granted now, or `None` if nothing is owed.
    pub(super) fn take_grant(&mut self) -> Option<u32> {
        let room = i64::from(MAX_CREDIT_BYTES).saturating_sub(self.receive_bytes.max(0));
        let grant = self.owed_bytes.min(u64::try_from(room).unwrap_or(0));
        let grant = u32::try_from(grant).ok().filter(|grant| *grant > 0)?;
        self.owed_bytes = self.owed_bytes.saturating_sub(u64::from(grant));
        self.receive_bytes = self.receive_bytes.saturating_add(i64::from(grant));
        Some(grant)
    }

    /// Returns `true` if half a window is owed.
    pub(super) fn is_due(&self) -> bool {
        self.owed_bytes > 0 && self.owed_bytes >= u64::from(self.window_bytes / 2)
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spend_may_overdraw_once_and_is_refused_until_granted() {
        let mut credit = Credit::new(Some(100), None);
        assert_eq!(credit.spend(1000), Ok(()));
        assert_eq!(credit.spend(1), Err(Refused(-900)));
        assert_eq!(credit.granted(900), Ok(false));
        assert_eq!(credit.spend(1), Err(Refused(0)));
        assert_eq!(credit.granted(1), Ok(true));
        assert_eq!(credit.spend(1), Ok(()));
    }

    #[test]
    fn refund_can_end_a_shortage() {
        let mut credit = Credit::new(Some(100), None);
        assert_eq!(credit.spend(110), Ok(()));
        credit.refund(16);
        assert_eq!(credit.spend(1), Ok(()));
    }

    #[test]
    fn granted_above_the_highest_credit_is_refused() {
        let mut credit = Credit::new(Some(MAX_CREDIT_BYTES), None);
        assert_eq!(credit.granted(1), Err(Refused(i64::from(MAX_CREDIT_BYTES))));
    }

    #[test]
    fn grant_waits_for_half_a_window() {
        let mut credit = Credit::new(None, Some(100));
        assert_eq!(credit.begin_item(60), Ok(()));
        credit.item_complete(60);
        assert!(!credit.consumed(49));
        assert!(credit.consumed(1));
        assert_eq!(credit.take_grant(), Some(50));
        assert_eq!(credit.take_grant(), None);
    }

    #[test]
    fn consumed_more_than_arrived_grants_no_more_than_arrived() {
        let mut credit = Credit::new(None, Some(10));
        assert_eq!(credit.begin_item(30), Ok(()));
        credit.item_complete(30);
        assert!(credit.consumed(u64::MAX));
        assert_eq!(credit.take_grant(), Some(30));
    }

    #[test]
    fn begin_item_without_credit_is_refused() {
        let mut credit = Credit::new(None, Some(10));
        assert_eq!(credit.begin_item(10), Ok(()));
        assert_eq!(credit.begin_item(1), Err(Refused(0)));
    }
}
