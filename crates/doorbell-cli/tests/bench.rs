//! `doorbell bench` as a user starts it: it runs, and what it prints can be read. What the figures are is not tested.

use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Keys that every row has, whatever it measures.
const KEYS: [&str; 26] = [
    "bench",
    "group",
    "peer",
    "mode",
    "size_bytes",
    "window",
    "connections",
    "spin",
    "pause_ns",
    "pin",
    "runs",
    "p50_ns",
    "p99_ns",
    "p999_ns",
    "per_s",
    "bytes_per_s",
    "system_calls_per_message",
    "cpus_used",
    "server_bytes",
    "near_far",
    "bounce_before_ns",
    "bounce_after_ns",
    "other_load",
    "reference",
    "ratio",
    "ratio_of",
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

/// Runs a benchmark quickly and looks into its report, which must have at least so many plots.
fn rows_with_report(benchmark: &str, plots: usize, arguments: &[&str]) -> Vec<Value> {
    let directory = tempfile::tempdir().unwrap();
    let report = directory.path().join("report.html");
    let mut all = vec![
        benchmark,
        "--quick",
        "--json",
        "--report",
        report.to_str().unwrap(),
    ];
    all.extend(arguments);
    let rows = rows(&all);
    let page = std::fs::read_to_string(report).unwrap();
    let drawn = page.matches("<figure>").count();
    assert!(drawn >= plots, "{drawn} plots");
    assert!(page.contains("</html>") && page.contains("<table>"));
    rows
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
fn bench_large_carries_large_messages() {
    let rows = rows_with_report("large", 2, &["--size", "64KiB", "--size", "1MiB"]);
    rows.iter().for_each(assert_has_keys);
    assert_eq!(peers(&rows), ["doorbell", "memcpy", "raw-copy"]);
}

#[test]
fn bench_stream_has_rows_for_each_direction_and_for_bytes() {
    let rows = rows_with_report("stream", 4, &["--size", "64", "--size", "4KiB"]);
    rows.iter().for_each(assert_has_keys);
    for group in ["server-stream", "client-stream", "both-ways", "bytes"] {
        for mode in ["blocking", "async"] {
            let is_wanted = |row: &&Value| {
                row["peer"] == "doorbell" && row["group"] == group && row["mode"] == mode
            };
            assert_eq!(rows.iter().filter(is_wanted).count(), 2, "{group} {mode}");
        }
    }
}

#[test]
fn bench_scale_has_connections_of_one_process_and_of_many() {
    let rows = rows_with_report("scale", 9, &["--connections", "2", "--connections", "5"]);
    rows.iter().for_each(assert_has_keys);
    assert_eq!(peers(&rows), ["doorbell", "tokio-socket"]);
    for group in [
        "pipelined",
        "one-call-each",
        "pipelined-processes",
        "one-call-each-processes",
    ] {
        let of_group: Vec<_> = rows.iter().filter(|row| row["group"] == group).collect();
        assert_eq!(of_group.len(), 4, "{group}");
        assert!(
            of_group
                .iter()
                .all(|row| row["server_bytes"].as_f64() > Some(0.0))
        );
    }
}

#[test]
fn bench_rows_say_how_doorbell_waits() {
    let rows = rows(&[
        "rtt", "--quick", "--json", "--only", "awaited", "--spin", "never",
    ]);
    let waits = |row: &Value| match row["peer"].as_str() {
        Some("doorbell") => row["spin"] == "never",
        _ => row["spin"].is_null(),
    };
    assert!(rows.iter().all(waits), "{rows:?}");
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
        ["doorbell", "raw-batch", "raw-ring", "tokio-socket"]
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
fn bench_memory_tells_what_a_server_costs() {
    let rows = rows_with_report("memory", 1, &["--connections", "5"]);
    let of_group = |group: &str| rows.iter().filter(|row| row["group"] == group).count();
    assert_eq!(
        of_group("idle"),
        4,
        "two servers, without and with connections"
    );
    assert_eq!(of_group("burst"), 8, "two servers at four moments");
    let idle = ["connections", "cpu_ms_per_s", "wake_ups_per_s"];
    let burst = ["moment", "seconds", "ratio"];
    for row in &rows {
        let own = if row["group"] == "idle" { idle } else { burst };
        for key in [
            "bench",
            "peer",
            "mode",
            "spin",
            "private_bytes",
            "region_bytes",
            "runs",
        ]
        .iter()
        .chain(&own)
        {
            assert!(row.get(key).is_some(), "{key} is missing in {row}");
        }
    }
}

#[test]
fn bench_idle_is_another_name_of_memory() {
    let rows = rows(&[
        "idle",
        "--quick",
        "--json",
        "--connections",
        "3",
        "--only",
        "idle",
    ]);
    assert_eq!(rows.len(), 4);
}

#[test]
fn bench_waking_compares_all_ways_to_wait_in_all_surroundings() {
    let rows = rows_with_report("waking", 18, &[]);
    rows.iter().for_each(assert_has_keys);
    for group in ["two-cpus", "one-cpu", "busy-cpus"] {
        for spin in ["never", "adaptive", "always"] {
            let is_wanted = |row: &&Value| {
                row["group"].as_str().unwrap().starts_with(group) && row["spin"] == spin
            };
            let found: Vec<_> = rows.iter().filter(is_wanted).collect();
            assert_eq!(found.len(), 4, "two interfaces, two rates: {group} {spin}");
            assert!(
                found
                    .iter()
                    .all(|row| row["cpus_used"].as_f64() > Some(0.0))
            );
        }
    }
}

#[test]
fn bench_stress_finds_no_error() {
    let rows = rows_with_report("stress", 3, &["--seed", "7"]);
    let all = rows.last().unwrap();
    assert_eq!(all["group"], "all together");
    assert!(all["messages"].as_u64() > Some(0), "{all}");
    for row in &rows {
        assert_eq!(row["errors"], 0, "{row}");
        assert_eq!(row["seed"], 7);
        for key in [
            "per_s",
            "bytes_per_s",
            "p50_ns",
            "p99_ns",
            "p999_ns",
            "max_ns",
            "near_far",
        ] {
            assert!(row.get(key).is_some(), "{key} is missing in {row}");
        }
    }
    for key in [
        "server_cpus_used",
        "client_cpus_used",
        "private_bytes_most",
        "region_bytes_after",
    ] {
        assert!(all.get(key).is_some(), "{key} is missing in {all}");
    }
}

#[test]
fn bench_soak_watches_both_sides() {
    let rows = rows_with_report("soak", 2, &[]);
    let sides: Vec<_> = rows.iter().map(|row| &row["group"]).collect();
    assert_eq!(sides, ["server", "clients"]);
    for row in &rows {
        assert_eq!(row["errors"], 0, "{row}");
        for memory in ["at_rest", "at_work"] {
            let memory = &row[memory];
            assert_eq!(memory["bytes_by_tenth"].as_array().unwrap().len(), 10);
            for key in ["first_bytes", "last_bytes", "most_bytes"] {
                assert!(memory[key].as_f64() > Some(1_048_576.0), "{key}: {row}");
            }
            assert!(memory["slope_bytes_per_hour"].is_number(), "{row}");
        }
        assert!(
            row["growth"].is_number() && row["verdict"].is_string(),
            "{row}"
        );
    }
}

#[test]
fn bench_soak_counts_descriptors_and_lays_a_line() {
    for work in ["mixed", "churn"] {
        let rows = rows(&["soak", "--quick", "--json", "--work", work]);
        for row in &rows {
            assert_eq!((&row["errors"], &row["work"]), (&0.into(), &work.into()));
            assert!(row["slope_per_hour"].is_number(), "{row}");
            let before = row["descriptors_before"].as_u64().unwrap();
            assert!(before > 3, "{row}");
            assert_eq!(row["descriptors_after"], before, "{row}");
        }
    }
}

#[test]
fn bench_all_has_every_benchmark_in_one_report() {
    let rows = rows_with_report("all", 30, &[]);
    let mut benches: Vec<_> = rows
        .iter()
        .map(|row| row["bench"].as_str().unwrap())
        .collect();
    benches.dedup();
    assert_eq!(
        benches,
        [
            "rtt",
            "throughput",
            "stream",
            "large",
            "mixed",
            "idle-gap",
            "scale",
            "waking",
            "memory",
            "stress",
            "soak"
        ]
    );
}

#[test]
fn bench_that_is_interrupted_still_prints_what_it_has() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    (0..5).for_each(|_| interrupt_at_once());
}

fn interrupt_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let report = directory.path().join("report.html");
    let mut bench = Command::new(env!("CARGO_BIN_EXE_doorbell"))
        .args(["bench", "idle-gap", "--json", "--seconds", "30", "--report"])
        .arg(&report)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // The report is opened before anything is measured and after Ctrl-C is looked after.
    let deadline = Instant::now() + Duration::from_secs(60);
    while !report.exists() {
        assert!(Instant::now() < deadline, "the benchmark does not begin");
        thread::yield_now();
    }
    let interrupted = Command::new("kill")
        .args(["-INT", &bench.id().to_string()])
        .status()
        .unwrap();
    assert!(interrupted.success());
    assert!(bench.wait().unwrap().success());
    let page = std::fs::read_to_string(report).unwrap();
    assert!(page.contains("</html>"), "{page}");
}

#[test]
fn bench_refuses_a_report_that_cannot_be_written_before_it_measures() {
    for report in ["/no/such/directory/report.html", "report.txt"] {
        let output = Command::new(env!("CARGO_BIN_EXE_doorbell"))
            .args(["bench", "rtt", "--report", report])
            .output()
            .unwrap();
        assert!(!output.status.success());
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(report), "{text}");
    }
}

#[test]
fn mistyped_bench_is_answered_with_bench_alone() {
    let output = Command::new(env!("CARGO_BIN_EXE_doorbell"))
        .arg("bnech")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        said.contains("a similar subcommand exists: 'bench'"),
        "{said}"
    );
}
