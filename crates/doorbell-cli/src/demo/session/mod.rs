//! The editor: plays a session against the engine, kills it in the middle, and goes on with the next.

pub(crate) mod complete;
pub(crate) mod context;
pub(crate) mod edit;
pub(crate) mod files;
pub(crate) mod plan;
pub(crate) mod record;
pub(crate) mod search;

use std::{
    collections::VecDeque,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use tokio::time::timeout;

use self::{
    context::{Context, Lane},
    edit::Documents,
    plan::{CompletionJob, Plan, SearchJob},
    record::Record,
};
use super::{
    child::EngineProcess,
    engine::model::Model,
    link::{Costs, Link, Transport},
    progress::Progress,
    protocol::{Describe, Diagnose},
};

/// What came of a session.
#[derive(Debug)]
pub(crate) struct Report {
    /// What carried it.
    pub(crate) transport: Transport,
    /// What the editor saw.
    pub(crate) record: Record,
    /// What the editor's connections cost.
    pub(crate) costs: Costs,
    /// Time with an engine, without its starts.
    pub(crate) time: Duration,
    /// The kill.
    pub(crate) kill: Kill,
}

/// What came of killing the engine.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kill {
    /// From the kill until every request in flight had an outcome.
    pub(crate) settled: Duration,
    /// From then until the next engine served, building its model included.
    pub(crate) restarted: Duration,
}

/// The work that is left.
#[derive(Debug)]
struct Work {
    files: VecDeque<usize>,
    searches: VecDeque<SearchJob>,
    completions: VecDeque<Vec<CompletionJob>>,
    documents: Documents,
    edit_rounds: VecDeque<u64>,
}

/// A session in progress.
struct Session<'a> {
    transport: Transport,
    path: &'a Path,
    plan: Arc<Plan>,
    model: Arc<Model>,
    progress: Arc<Progress>,
    record: Arc<Mutex<Record>>,
    costs: Costs,
    time: Duration,
}

/// Plays the session of `plan` over a transport; engines serve at `path`.
///
/// # Errors
///
/// If an engine cannot be started, or ends by itself. What merely differs is in the report.
pub(crate) async fn play(
    transport: Transport,
    path: &Path,
    plan: Arc<Plan>,
    model: Arc<Model>,
) -> anyhow::Result<Report> {
    let work = Work::of(&plan);
    let progress = Arc::new(Progress::new(&work.lanes()));
    let record = Arc::default();
    let (costs, time) = (Costs::default(), Duration::ZERO);
    let mut session = Session {
        transport,
        path,
        plan,
        model,
        progress,
        record,
        costs,
        time,
    };
    let kill = session.play(work).await;
    session.progress.finish();
    let record = session
        .record
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let kill = kill.with_context(|| {
        let before = record
            .differences
            .iter()
            .map(|difference| format!("\n  before that: {difference}"));
        format!(
            "the session over {} broke off{}",
            transport.title(),
            before.collect::<String>()
        )
    })?;
    Ok(Report {
        transport,
        record,
        costs: session.costs,
        time: session.time,
        kill,
    })
}

impl Session<'_> {
    async fn play(&mut self, mut work: Work) -> anyhow::Result<Kill> {
        let (engine, link) = self.start().await?;
        let first_half = work.take_half();
        let left = self.run(&link, first_half).await?;
        if !left.is_empty() {
            bail!("the engine stopped answering in the middle of the session");
        }
        work.documents = left.documents;
        let (mut work, settled) = self.run_and_kill(engine, &link, work).await?;
        drop(link);
        let restarting = Instant::now();
        let (engine, link) = self.start().await?;
        let restarted = restarting.elapsed();
        self.progress.say(&format!(
            "the next engine serves after {restarted:.1?}; going on"
        ));
        work = self.run(&link, work).await?;
        if !work.is_empty() {
            bail!("the engine stopped answering after its restart");
        }
        self.compare_edits(&link).await?;
        self.costs += link.costs();
        drop(link);
        engine.stop().await?;
        Ok(Kill { settled, restarted })
    }

    /// Starts an engine and connects to it.
    async fn start(&mut self) -> anyhow::Result<(EngineProcess, Link)> {
        let engine = EngineProcess::start(self.transport, self.path, &self.plan.root).await?;
        let link = timeout(self.plan.limit, Link::connect(self.transport, self.path)).await;
        let link = link
            .context("no connection in time")?
            .context("cannot connect to the engine")?;
        let engine_is = link
            .call(Describe {}, self.plan.limit)
            .await
            .map_err(|failure| anyhow::anyhow!(failure.text))?;
        if engine_is.model_fingerprint != self.model.fingerprint() {
            self.model = Arc::new(Model::of_tree(&self.plan.root));
        }
        if engine_is.model_fingerprint != self.model.fingerprint() {
            bail!(
                "the tree changes while the demo reads it; try again, or choose a directory in which nobody works"
            );
        }
        Ok((engine, link))
    }

    /// Runs all lanes at once. Returns what is left as the engine has gone.
    async fn run(&mut self, link: &Link, work: Work) -> anyhow::Result<Work> {
        let started = Instant::now();
        let left = self.spawn(link, work).lanes.await;
        self.time += started.elapsed();
        left
    }

    /// Runs all lanes, and kills the engine when all are at work.
    async fn run_and_kill(
        &mut self,
        engine: EngineProcess,
        link: &Link,
        work: Work,
    ) -> anyhow::Result<(Work, Duration)> {
        let (_queries, mut witness) = link
            .bidi(Diagnose {})
            .await
            .map_err(|failure| anyhow::anyhow!("cannot open a stream: {}", failure.text))?;
        let lanes = work.lanes_with_work();
        let started = Instant::now();
        let Running {
            context,
            lanes: running,
        } = self.spawn(link, work);
        timeout(self.plan.limit, context.all_at_work(&lanes))
            .await
            .context("the engine answers nothing")?;
        self.costs += link.costs(); // now, as they end with the connection
        context.announce_kill();
        let killed = Instant::now();
        let status = engine.kill().await.context("cannot kill the engine")?;
        let left = running.await?;
        let noticed = timeout(self.plan.limit, witness.next()).await;
        let settled = killed.elapsed();
        self.time += started.elapsed();
        let endings = context.record(|record| {
            let failure = noticed.ok().flatten().and_then(Result::err);
            record.compare(failure.is_some(), || {
                "the engine was killed and an open stream did not fail".to_owned()
            });
            failure
                .iter()
                .for_each(|failure| record.add_failure(failure));
            record.endings
        });
        let (unknown, not_executed) = (endings.unknown, endings.not_executed);
        self.progress.say(&format!(
            "engine killed ({status}): {unknown} requests ended as Unknown, {not_executed} as NotExecuted, \
             the last of them after {settled:.1?}"
        ));
        Ok((left, settled))
    }

    async fn compare_edits(&self, link: &Link) -> anyhow::Result<()> {
        let engine = link
            .call(Describe {}, self.plan.limit)
            .await
            .map_err(|failure| anyhow::anyhow!(failure.text))?;
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        let misfits = engine.edits_out_of_order;
        record.compare(misfits == 0, || {
            format!("{misfits} edits arrived out of order")
        });
        Ok(())
    }

    fn spawn(
        &self,
        link: &Link,
        work: Work,
    ) -> Running<impl Future<Output = anyhow::Result<Work>> + use<>> {
        let (plan, model) = (Arc::clone(&self.plan), Arc::clone(&self.model));
        let (progress, record) = (Arc::clone(&self.progress), Arc::clone(&self.record));
        let context = Arc::new(Context::new(plan, model, link.clone(), progress, record));
        let files = spawn(&context, |context| async move {
            files::run(&context, work.files).await
        });
        let searches = spawn(&context, |context| async move {
            search::run(&context, work.searches).await
        });
        let completions = spawn(&context, |context| async move {
            complete::run(&context, work.completions).await
        });
        let edits = spawn(&context, |context| async move {
            edit::run(&context, work.documents, work.edit_rounds).await
        });
        let lanes = async move {
            let (documents, edit_rounds) = edits.await?;
            let (files, searches, completions) =
                (files.await?, searches.await?, completions.await?);
            Ok(Work {
                files,
                searches,
                completions,
                documents,
                edit_rounds,
            })
        };
        Running { context, lanes }
    }
}

/// Lanes that run, and what will be left of their work.
struct Running<F> {
    context: Arc<Context>,
    lanes: F,
}

fn spawn<F>(
    context: &Arc<Context>,
    lane: impl FnOnce(Arc<Context>) -> F,
) -> tokio::task::JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(lane(Arc::clone(context)))
}

impl Work {
    fn of(plan: &Plan) -> Self {
        Self {
            files: plan.opens.clone(),
            searches: plan.searches.clone(),
            completions: plan.completions.clone(),
            documents: Documents(plan.documents.clone()),
            edit_rounds: plan.edit_rounds.clone(),
        }
    }

    /// Splits off the first half of each lane. The documents go with it and have to come back.
    fn take_half(&mut self) -> Self {
        Self {
            files: first_half(&mut self.files),
            searches: first_half(&mut self.searches),
            completions: first_half(&mut self.completions),
            documents: self.documents.clone(),
            edit_rounds: first_half(&mut self.edit_rounds),
        }
    }

    fn lanes(&self) -> [(&'static str, usize); 4] {
        [
            ("files", self.files.len()),
            ("searches", self.searches.len()),
            ("completions", self.completions.len()),
            ("edit rounds", self.edit_rounds.len()),
        ]
    }

    fn lanes_with_work(&self) -> Vec<Lane> {
        let lanes = [Lane::Files, Lane::Search, Lane::Complete, Lane::Edit];
        lanes
            .into_iter()
            .filter(|lane| self.lanes()[*lane as usize].1 > 0)
            .collect()
    }

    fn is_empty(&self) -> bool {
        self.lanes_with_work().is_empty()
    }
}

fn first_half<T>(items: &mut VecDeque<T>) -> VecDeque<T> {
    let half = items.len().div_ceil(2);
    let second = items.split_off(half);
    std::mem::replace(items, second)
}
