//! What the figures of a page belong to: machine, versions and date.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use doorbell_shm::sys;

/// Returns facts with their names, as far as the system tells them.
pub(super) fn facts() -> Vec<(&'static str, String)> {
    let facts = [
        ("CPU", cpu_model()),
        ("CPUs", Some(sys::cpu_count().to_string())),
        ("kernel", kernel()),
        ("memory", memory()),
        ("Doorbell", Some(doorbell_version())),
        ("date", Some(date(SystemTime::now()))),
    ];
    facts
        .into_iter()
        .filter_map(|(name, fact)| Some((name, fact?)))
        .collect()
}

fn doorbell_version() -> String {
    let profile = if cfg!(debug_assertions) {
        "built without optimisation: the figures mean nothing"
    } else {
        "optimised"
    };
    format!("{} ({profile})", env!("CARGO_PKG_VERSION"))
}

fn cpu_model() -> Option<String> {
    value(&fs::read_to_string("/proc/cpuinfo").ok()?, "model name")
}

fn memory() -> Option<String> {
    let total = value(&fs::read_to_string("/proc/meminfo").ok()?, "MemTotal")?;
    let kibibytes: f64 = total.trim_end_matches(" kB").parse().ok()?;
    Some(format!("{:.1} GiB", kibibytes / 1_048_576.0))
}

fn kernel() -> Option<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let (system, machine) = (std::env::consts::OS, std::env::consts::ARCH);
    Some(format!("{system} {} {machine}", release.trim()))
}

/// Returns the value of the first line `key: value`.
fn value(text: &str, key: &str) -> Option<String> {
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    let mut values = fields.filter(|(name, _)| name.trim() == key);
    values.next().map(|(_, value)| value.trim().to_owned())
}

/// Returns a date with the time of day, UTC.
fn date(time: SystemTime) -> String {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |passed| passed.as_secs());
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

/// Returns year, month and day, so many days after the first of January 1970.
fn civil(mut days: u64) -> (u64, u64, u64) {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= months[month] {
        days -= months[month];
        month += 1;
    }
    (year, month as u64 + 1, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(31 + 28), (1970, 3, 1));
        assert_eq!(civil(19_782), (2024, 2, 29));
        assert_eq!(civil(20_088), (2024, 12, 31));
    }

    #[test]
    fn a_value_stands_behind_its_key() {
        let text = "MemTotal:       24000 kB\nmodel name\t: Some CPU: fast\n";
        assert_eq!(value(text, "MemTotal").as_deref(), Some("24000 kB"));
        assert_eq!(value(text, "model name").as_deref(), Some("Some CPU: fast"));
    }
}
