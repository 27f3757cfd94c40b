//! Messages that can be told apart: a number stands in the first and in the last eight bytes.
//!
//! A client sends a few messages in turn, which are made beforehand. Whoever answers with an older message, or with half of one,
//! is found out, and nobody pays for making a large message anew each time.

use anyhow::ensure;

/// Messages of one size that are sent in turn.
#[derive(Clone, Debug)]
pub(crate) struct Turn<T> {
    messages: Vec<T>,
    next: usize,
}

impl<T> Turn<T> {
    /// Makes as many messages as there are turns.
    pub(crate) fn new(make: impl Fn(u64) -> T) -> Self {
        Self {
            messages: (1..=TURNS).map(make).collect(),
            next: 0,
        }
    }

    /// Returns the message whose turn it is.
    pub(crate) fn next(&mut self) -> &T {
        self.next = (self.next + 1) % self.messages.len();
        &self.messages[self.next]
    }
}

/// Makes a message of `size_bytes` with `number` at both ends.
pub(crate) fn message(size_bytes: usize, number: u64) -> Vec<u8> {
    let mut message = vec![FILL; size_bytes];
    stamp(&mut message, number);
    message
}

/// Writes `number` at both ends of `message`.
pub(crate) fn stamp(message: &mut [u8], number: u64) {
    let bytes = number.to_le_bytes();
    if let Some(first) = message.first_chunk_mut() {
        *first = bytes;
    }
    if let Some(last) = message.last_chunk_mut() {
        *last = bytes;
    }
}

/// Returns the numbers at both ends of `message`.
pub(crate) fn ends(message: &[u8]) -> (u64, u64) {
    let number = |bytes: Option<&[u8; 8]>| bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes));
    (number(message.first_chunk()), number(message.last_chunk()))
}

/// Checks that `echo` is `sent`: its length and both ends.
///
/// # Errors
///
/// If it is not.
pub(crate) fn check(echo: &[u8], sent: &[u8]) -> anyhow::Result<()> {
    ensure!(
        echo.len() == sent.len() && ends(echo) == ends(sent),
        "the echo is not what was sent"
    );
    Ok(())
}

/// Looks at every item of a stream: numbers at both ends that count up from where the first one stands.
#[derive(Debug, Default)]
pub(crate) struct Sequence {
    expected: Option<u64>,
    wrong: u64,
}

impl Sequence {
    /// Handles one item.
    #[inline]
    pub(crate) fn handle(&mut self, item: &[u8]) {
        let (first, last) = ends(item);
        let expected = self.expected.unwrap_or(first);
        self.wrong += u64::from(first != expected || last != expected);
        self.expected = Some(expected.wrapping_add(1));
    }

    /// Ends the look.
    ///
    /// # Errors
    ///
    /// If an item was missing, changed or out of order.
    pub(crate) fn finish(&self) -> anyhow::Result<()> {
        ensure!(self.expected.is_some(), "no item has arrived");
        ensure!(
            self.wrong == 0,
            "{} items are not what was sent",
            self.wrong
        );
        Ok(())
    }
}

/// How many messages are sent in turn.
const TURNS: u64 = 4;

/// What messages are filled with.
const FILL: u8 = 0x5A;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_with_another_end_or_length_is_found_out() {
        let sent = message(64, 7);
        assert!(check(&sent, &sent).is_ok());
        let mut changed = sent.clone();
        changed[63] ^= 1;
        assert!(check(&changed, &sent).is_err());
        assert!(check(&sent[..63], &sent).is_err());
    }

    #[test]
    fn a_missing_item_is_found_out() {
        let mut sequence = Sequence::default();
        assert!(sequence.finish().is_err());
        sequence.handle(&message(64, 5));
        sequence.handle(&message(64, 6));
        assert!(sequence.finish().is_ok());
        sequence.handle(&message(64, 8));
        assert!(sequence.finish().is_err());
    }

    #[test]
    fn messages_that_follow_each_other_differ() {
        let mut turn = Turn::new(|number| message(64, number));
        let first = turn.next().clone();
        assert!(check(turn.next(), &first).is_err());
    }
}
