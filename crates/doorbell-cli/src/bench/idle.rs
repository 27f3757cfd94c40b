//! What `bench idle` measures: a server whose clients have nothing to say.

use clap::Args;

/// Options of `bench idle`.
#[derive(Debug, Args)]
pub(crate) struct IdleArgs {
    /// Prints one JSON object per row instead of a table
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(_args: &IdleArgs) -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}
