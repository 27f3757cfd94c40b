//! `doorbell bench` as a user starts it: it runs, and what it prints can be read. What the figures are is not tested.

use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

/// Keys that every row has, whatever it measures.
const KEYS: [&str; 20] = [
    "bench",
    "group",
    "peer",
    "mode",
    "size_bytes",
    "window",
    "pin",
    "runs",
    "p50_ns",
    "p99_ns",
    "p999_ns",
    "per_s",
    "bytes_per_s",
    "system_calls_per_message",
    "near_far",
    "bounce_before_ns",
    "bounce_after_ns",
    "other_load",
    "reference",
    "ratio",
];

/// One benchmark at a time: each keeps two CPUs busy.
static TURN: Mutex<()> = Mutex::new(());

fn bench(arguments: &[&str]) -> Output {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let output = Command::new(env!("CARGO_BIN_EXE_doorbell"))
        .arg("bench")
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn rows(arguments: &[&str]) -> Vec<Value> {
    let output = bench(arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn assert_has_keys(row: &Value) {
    for key in KEYS {
        assert!(row.get(key).is_some(), "{key} is missing in {row}");
    }
    assert!(row["per_s"].as_f64().unwrap() > 0.0, "{row}");
}

fn peers(rows: &[Value]) -> Vec<&str> {
    let mut peers: Vec<_> = rows
        .iter()
        .map(|row| row["peer"].as_str().unwrap())
        .collect();
    peers.sort_unstable();
    peers.dedup();
    peers
}

#[test]
fn bench_rtt_prints_a_row_for_doorbell_and_for_each_reference() {
    let rows = rows(&["rtt", "--quick", "--json", "--size", "64"]);
    rows.iter().for_each(assert_has_keys);
    assert_eq!(
        peers(&rows),
        [
            "bounce",
            "doorbell",
            "raw-copy",
            "raw-event",
            "raw-futex",
            "tokio-socket"
        ]
    );
}

#[test]
fn bench_rtt_carries_large_messages() {
    let rows = rows(&[
        "rtt", "--quick", "--json", "--size", "1MiB", "--only", "awake",
    ]);
    rows.iter().for_each(assert_has_keys);
    assert_eq!(peers(&rows), ["doorbell", "raw-copy"]);
}

#[test]
fn bench_throughput_prints_a_row_for_doorbell_and_for_each_reference() {
    let rows = rows(&[
        "throughput",
        "--quick",
        "--json",
        "--size",
        "64",
        "--window",
        "32",
    ]);
    rows.iter().for_each(assert_has_keys);
    assert_eq!(
        peers(&rows),
        [
            "doorbell",
            "memcpy",
            "raw-batch",
            "raw-ring",
            "tokio-socket"
        ]
    );
}

#[test]
fn bench_mixed_compares_the_slow_ones_with_undisturbed_ones() {
    for size in ["64", "4KiB"] {
        let rows = rows(&["mixed", "--quick", "--json", "--size", size]);
        rows.iter().for_each(assert_has_keys);
        assert_eq!(peers(&rows), ["doorbell"]);
        assert!(
            rows.iter().any(|row| row["ratio_of"] == "p99_ns"),
            "{rows:?}"
        );
    }
}

#[test]
fn bench_idle_gap_has_a_row_for_each_gap() {
    let rows = rows(&["idle-gap", "--quick", "--json", "--only", "Hz-blocking"]);
    rows.iter().for_each(assert_has_keys);
    for group in ["10kHz-blocking", "100Hz-blocking", "1Hz-blocking"] {
        assert!(rows.iter().any(|row| row["group"] == group), "{rows:?}");
    }
}

#[test]
fn bench_prints_a_table_for_people() {
    let output = bench(&["rtt", "--quick", "--only", "awake", "--size", "64"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("raw-copy") && text.contains("p99.9"),
        "{text}"
    );
}

#[test]
fn bench_names_the_groups_when_none_is_meant() {
    let output = Command::new(env!("CARGO_BIN_EXE_doorbell"))
        .args(["bench", "rtt", "--only", "no-such-group"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("awake"), "{text}");
}

#[test]
fn bench_idle_tells_what_a_server_costs() {
    let rows = rows(&["idle", "--quick", "--json", "--connections", "10"]);
    assert_eq!(rows.len(), 4, "two servers, without and with connections");
    for row in &rows {
        for key in [
            "bench",
            "peer",
            "mode",
            "connections",
            "private_bytes",
            "cpu_ms_per_s",
            "wake_ups_per_s",
            "runs",
        ] {
            assert!(row.get(key).is_some(), "{key} is missing in {row}");
        }
    }
}
