//! `doorbell serve --echo`: something to connect to.

use anyhow::Context as _;
use clap::Args;
use doorbell::{Raw, Server, Status};

use crate::echo::Echo;

/// What to serve, and under which name.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Sends every message of type 1 back as it came
    #[arg(long, required = true)]
    echo: bool,
    /// Name of the service, or the path of its socket (a path has a slash in it)
    name: String,
}

/// Serves until Ctrl-C, then lets calls under way finish.
///
/// # Errors
///
/// If the name cannot be bound.
pub(crate) fn run(args: &ServeArgs) -> anyhow::Result<()> {
    debug_assert!(
        args.echo,
        "the option is required as long as there is nothing else to serve"
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(&args.name))
}

async fn serve(name: &str) -> anyhow::Result<()> {
    let server = Server::builder(name)
        .trim_heap_when_quiet()
        .on(|_context, request: Echo<Raw>| async move { Ok::<_, Status>(request.0) })
        .bind()
        .await
        .with_context(|| format!("cannot serve {name:?}"))?;
    println!("serving {name:?}; try `doorbell ping {name}`; Ctrl-C ends it");
    let served = server.clone();
    server
        .serve_until(ctrl_c())
        .await
        .context("the server has failed")?;
    let stats = served.stats();
    println!(
        "ended; {} connections, {} messages sent",
        stats.accepted, stats.messages.messages_sent
    );
    Ok(())
}

async fn ctrl_c() {
    // Without a handler Ctrl-C ends the process, which is all right too.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
