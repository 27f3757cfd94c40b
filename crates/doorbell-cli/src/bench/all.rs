//! What `bench all` measures: everything, in an order from the simple to the long.

use clap::{Args, Parser};

use super::What;
use super::options::{Common, positive_seconds};
use super::output::Output;
use crate::interrupt::interrupted;

/// Options of `bench all`.
#[derive(Clone, Debug, Args)]
pub(crate) struct AllArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Length of one measurement, in seconds
    #[arg(long, default_value_t = 1.0, value_parser = positive_seconds)]
    seconds: f64,
    /// How often each measurement is repeated, each time with fresh processes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// How long the soak lasts, in minutes; 0 leaves it out
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// What the clients of `stress` and `soak` do: the same seed gives the same work
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A command line as a user could have written it, so that every option has one default and one place.
#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
struct Line {
    #[command(subcommand)]
    what: What,
}

/// Runs every benchmark. What fails does not keep the others from running.
///
/// # Errors
///
/// The first failure.
pub(crate) fn run(args: &AllArgs, output: &mut Output) -> anyhow::Result<()> {
    let lines = lines(args)
        .into_iter()
        .map(Line::try_parse_from)
        .collect::<Result<Vec<_>, _>>()?;
    let mut result = Ok(());
    for line in lines {
        if interrupted() {
            break;
        }
        eprintln!("bench {}", line.what.name());
        let this = line.what.run(output);
        if let Err(error) = &this {
            eprintln!("error: {}: {error:#}", line.what.name());
        }
        result = result.and(this);
    }
    result
}

fn lines(args: &AllArgs) -> Vec<Vec<String>> {
    let mut common = Vec::from_iter(args.common.quick.then(|| "--quick".to_owned()));
    if let Some(spin) = args.common.spin {
        common.extend(["--spin".to_owned(), spin.name().to_owned()]);
    }
    let option = |name: &str, value: String| [format!("--{name}"), value];
    let rows = [
        option("seconds", args.seconds.to_string()),
        option("runs", args.runs.to_string()),
    ]
    .concat();
    let seed = option("seed", args.seed.to_string());
    let soak = [option("minutes", args.minutes.to_string()), seed.clone()].concat();
    let mut all: Vec<(&str, Vec<String>)> = GROUPS.map(|name| (name, rows.clone())).into();
    all.push(("memory", Vec::new()));
    all.push(("stress", seed.into()));
    if args.minutes > 0.0 {
        all.push(("soak", soak));
    }
    let line = |(name, options): (&str, Vec<String>)| {
        let name = [name.to_owned()];
        name.into_iter()
            .chain(common.clone())
            .chain(options)
            .collect()
    };
    all.into_iter().map(line).collect()
}

/// Those that have groups of rows.
const GROUPS: [&str; 8] = [
    "rtt",
    "throughput",
    "stream",
    "large",
    "mixed",
    "idle-gap",
    "scale",
    "waking",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::options::Waiting;

    #[test]
    fn every_line_is_one_that_a_user_could_have_written() {
        #[derive(Parser)]
        struct Whole {
            #[command(flatten)]
            args: AllArgs,
        }
        let whole = Whole::parse_from([
            "all",
            "--quick",
            "--spin",
            "never",
            "--seed",
            "5",
            "--minutes",
            "0.5",
        ]);
        let lines = lines(&whole.args);
        assert_eq!(lines.len(), GROUPS.len() + 3);
        for line in lines {
            let parsed = Line::try_parse_from(&line).unwrap();
            assert_eq!(parsed.what.name(), line[0]);
            let common = parsed.what.common();
            assert!(common.quick && common.spin == Some(Waiting::Never));
        }
    }
}
