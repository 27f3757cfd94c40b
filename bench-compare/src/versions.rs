//! Which versions of the rivals are measured: those of the lock file this program was built with.

/// Returns the rivals with their versions, in one line.
pub(crate) fn of_rivals() -> String {
    let named: Vec<_> = RIVALS
        .iter()
        .filter_map(|name| Some(format!("{name} {}", version(LOCK, name)?)))
        .collect();
    named.join(", ")
}

/// Returns the version that follows the name of a package in a lock file.
fn version<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name).skip(1);
    lines
        .next()?
        .strip_prefix("version = \"")?
        .strip_suffix('"')
}

const LOCK: &str = include_str!("../Cargo.lock");

const RIVALS: [&str; 7] = [
    "tokio",
    "tonic",
    "iceoryx2",
    "shmipc",
    "ipc-channel",
    "zmq",
    "zeromq-src",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rival_is_in_the_lock_file() {
        for name in RIVALS {
            assert!(version(LOCK, name).is_some(), "{name}");
        }
        assert_eq!(version(LOCK, "tokio-nothing"), None);
    }
}
