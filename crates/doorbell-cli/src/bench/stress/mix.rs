//! What a client does next: kinds of work, how often each comes, and how large it is.

use doorbell::Raw;
use doorbell_cli::random::Random;

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A call of 100 B to 1 KiB.
    Small,
    /// A call of 1 to 64 KiB.
    Medium,
    /// A call of 64 KiB to 1 MiB.
    Large,
    /// A call of 1 to 10 MB.
    Huge,
    /// A call of 1 KiB to 1 MiB that is lent, and so is its reply.
    Lent,
    /// A stream from the server, which is cancelled after some items.
    FromServer,
    /// A stream to the server.
    FromClient,
    /// A stream in each direction.
    BothWays,
    /// Many calls at once.
    Burst,
    /// Goodbye, and a new connection with a first call.
    Churn,
}

impl Kind {
    pub(crate) const ALL: [Self; 10] = [
        Self::Small,
        Self::Medium,
        Self::Large,
        Self::Huge,
        Self::Lent,
        Self::FromServer,
        Self::FromClient,
        Self::BothWays,
        Self::Burst,
        Self::Churn,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Small => "call to 1 KiB",
            Self::Medium => "call to 64 KiB",
            Self::Large => "call to 1 MiB",
            Self::Huge => "call to 10 MB",
            Self::Lent => "lent call to 1 MiB",
            Self::FromServer => "stream from the server",
            Self::FromClient => "stream to the server",
            Self::BothWays => "stream both ways",
            Self::Burst => "burst of calls",
            Self::Churn => "new connection",
        }
    }

    /// Returns the sizes of one message.
    fn sizes(self) -> (usize, usize) {
        match self {
            Self::Small | Self::Burst | Self::Churn => (100, 1 << 10),
            Self::Medium => (1 << 10, 64 << 10),
            Self::Large => (64 << 10, 1 << 20),
            Self::Huge => (1 << 20, 10_000_000),
            Self::Lent => (1 << 10, 1 << 20),
            Self::FromServer | Self::FromClient | Self::BothWays => (100, 8 << 10),
        }
    }

    /// Returns the numbers of messages.
    fn counts(self) -> (usize, usize) {
        match self {
            Self::FromServer | Self::FromClient | Self::BothWays => (1, 64),
            Self::Burst => (16, 128),
            _ => (1, 1),
        }
    }
}

/// One piece of work.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) kind: Kind,
    pub(crate) body: Raw,
    /// Messages: items of a stream, or calls.
    pub(crate) count: usize,
}

/// How often each kind comes, in parts of their sum.
pub(crate) type Weights = [(Kind, usize)];

/// Everything, with connections that come and go.
pub(crate) const ALL: &Weights = &[
    (Kind::Small, 700),
    (Kind::Medium, 150),
    (Kind::Large, 25),
    (Kind::Huge, 2),
    (Kind::Lent, 40),
    (Kind::FromServer, 40),
    (Kind::FromClient, 40),
    (Kind::BothWays, 20),
    (Kind::Burst, 15),
    (Kind::Churn, 8),
];

/// What a program does all day.
pub(crate) const STEADY: &Weights = &[
    (Kind::Small, 900),
    (Kind::Medium, 90),
    (Kind::Large, 3),
    (Kind::FromServer, 4),
    (Kind::FromClient, 2),
    (Kind::BothWays, 1),
];

/// Clients that come and go, and do little meanwhile.
pub(crate) const CHURN: &Weights = &[(Kind::Churn, 1)];

/// The work of one client, which depends on its seed alone.
pub(crate) struct Mix {
    random: Random,
    weights: &'static Weights,
    bytes: Bytes,
}

/// Bytes of which every body is a part.
#[derive(Clone, Debug)]
pub(crate) struct Bytes(bytes::Bytes);

impl Bytes {
    /// Makes enough for the largest body.
    pub(crate) fn of_seed(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let words = std::iter::repeat_with(|| random.next_u64().to_le_bytes());
        Self(words.take(POOL_BYTES / 8).flatten().collect())
    }
}

impl Mix {
    /// Starts the work of the client with this number.
    pub(crate) fn new(weights: &'static Weights, bytes: &Bytes, seed: u64, number: usize) -> Self {
        let mut seeds = Random::new(seed ^ (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Self {
            random: Random::new(seeds.next_u64()),
            weights,
            bytes: bytes.clone(),
        }
    }

    /// Returns what is to be done next.
    pub(crate) fn next(&mut self) -> Work {
        let kind = self.kind();
        let size = self.between(kind.sizes());
        let start = self.random.below(POOL_BYTES - size + 1);
        Work {
            kind,
            body: Raw(self.bytes.0.slice(start..start + size)),
            count: self.between(kind.counts()),
        }
    }

    fn kind(&mut self) -> Kind {
        let sum = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut left = self.random.below(sum);
        for &(kind, weight) in self.weights {
            match left.checked_sub(weight) {
                Some(rest) => left = rest,
                None => return kind,
            }
        }
        unreachable!("the number was below the sum")
    }

    fn between(&mut self, (least, most): (usize, usize)) -> usize {
        least + self.random.below(most - least + 1)
    }
}

const POOL_BYTES: usize = 12 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_work() {
        let bytes = Bytes::of_seed(1);
        let work = |number| {
            let mut mix = Mix::new(ALL, &bytes, 7, number);
            let next = || {
                let work = mix.next();
                (work.kind, work.body.0, work.count)
            };
            std::iter::repeat_with(next).take(50).collect::<Vec<_>>()
        };
        assert!(work(3) == work(3));
        assert!(work(3) != work(4));
    }

    #[test]
    fn every_kind_with_a_weight_comes_and_stays_within_its_sizes() {
        let mut mix = Mix::new(ALL, &Bytes::of_seed(1), 7, 0);
        let works: Vec<_> = std::iter::repeat_with(|| mix.next()).take(5000).collect();
        for kind in Kind::ALL {
            assert!(works.iter().any(|work| work.kind == kind), "{kind:?}");
        }
        for work in works {
            let (least, most) = work.kind.sizes();
            assert!((least..=most).contains(&work.body.0.len()), "{work:?}");
        }
    }
}
