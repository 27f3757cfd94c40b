//! Both sides killed, in any order: what either has written down must agree, and the next pair finds nothing in its way.

use std::{collections::HashMap, path::Path, time::Duration};

use super::{
    Random,
    clients::Life,
    counts::Counts,
    process::{Part, Victim, spin},
    serving,
};

/// Where they meet.
pub(crate) struct Together<'a> {
    pub(crate) socket: &'a str,
}

impl Together<'_> {
    /// A server and two clients live and die. `cycle` has not been before.
    pub(crate) fn die(&self, random: &mut Random, cycle: u64, counts: &mut Counts) {
        let server = [Part::Server, Part::BlockingServer][random.below(2) as usize];
        let mut lives: Vec<Life> = [server, Part::Client, Part::BlockingClient]
            .into_iter()
            .enumerate()
            .map(|(index, part)| self.start(part, cycle * 4 + index as u64))
            .collect();
        if random.below(4) == 0 {
            spin(Duration::from_micros(random.below(20_000)));
        } else {
            let target = 8 * (1 + random.below(60));
            let (executed, clients) = (lives[0].log.path().to_owned(), &mut lives[1]);
            clients.wait_until("a pair comes to work", || length(&executed) >= target);
            spin(Duration::from_micros(random.below(200)));
        }
        let first = random.below(3) as usize;
        lives.rotate_left(first);
        for life in &mut lives {
            life.victim.send_kill();
            spin(Duration::from_micros(random.below(300)));
        }
        for life in &mut lives {
            life.victim.kill();
        }
        lives.rotate_right(first);
        counts.kills += 1;
        let mut answered = HashMap::new();
        for life in &lives[1..] {
            answered.extend(serving::read(life.log.path()));
        }
        counts.compare(&serving::read(lives[0].log.path()), &answered, false);
    }

    fn start(&self, part: Part, seed: u64) -> Life {
        let log = tempfile::NamedTempFile::new().unwrap();
        let victim = Victim::start(part, self.socket, log.path(), seed);
        Life { victim, log }
    }
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |file| file.len())
}
