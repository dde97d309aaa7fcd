//! The tasks that have not ended, and the pool, as a watcher is shown them before
//! the events: a bounded part at a time, read when there is room for it.

use std::{collections::VecDeque, sync::Arc};

use prost::Message as _;

use super::Sources;
use crate::{
    events::{BoxFuture, EventFilterSpec},
    grpc::convert,
    proto::v1,
    store::{self, Asker, Filter, Query, Store},
    task::{State, TaskId},
};

/// Tasks that are read together, and held until the client has read them: their labels
/// and errors may have 6 KB each.
const PAGE: usize = 32;
/// Tasks that are looked up together, when a watcher names them.
const LOOKUPS: usize = 32;
/// Bytes of tasks in one part, or one task.
const MAX_PART_BYTES: usize = 256 << 10;
/// Workers in one part: some hundred bytes each.
const MAX_PART_WORKERS: usize = 1_000;

type Read = Result<(Vec<store::Task>, Cut), store::Error>;

/// Where the next page begins.
enum Cut {
    Beyond(u64),
    End,
}

/// A snapshot that is being told.
pub struct Snapshot {
    store: Arc<Store>,
    asker: Asker,
    filter: Filter,
    /// The tasks that are named, if any are, in the order of submission; those that
    /// are left.
    named: Option<VecDeque<TaskId>>,
    beyond: Option<u64>,
    /// A read that is under way, also when whoever asked has turned away.
    reading: Option<BoxFuture<'static, Read>>,
    /// Read, and not told.
    tasks: VecDeque<v1::Task>,
    workers: VecDeque<v1::Worker>,
    begun: bool,
    is_read: bool,
}

impl Snapshot {
    /// One of what a watcher is interested in, as it stands when it is read.
    pub fn new(sources: &Sources, spec: &EventFilterSpec, asker: Asker) -> Self {
        let mut named: Vec<_> = spec.tasks.clone();
        named.sort_unstable();
        named.dedup();
        Self {
            store: Arc::clone(&sources.store),
            asker,
            filter: Filter {
                states: State::ALL.into_iter().filter(|state| !state.is_terminal()).collect(),
                queues: spec.queues.clone(),
                kinds: spec.kinds.clone(),
                labels: spec.labels.clone(),
                ..Filter::default()
            },
            named: (!named.is_empty()).then(|| named.into()),
            beyond: None,
            reading: None,
            tasks: VecDeque::new(),
            workers: convert::pool(&sources.pool.status()).workers.into(),
            begun: false,
            is_read: false,
        }
    }

    /// The next part; `None` when all is told. There is always one. Dropping the
    /// future loses nothing.
    ///
    /// # Errors
    /// The store's.
    pub async fn next(&mut self) -> Result<Option<v1::WatchSnapshot>, store::Error> {
        if !self.begun || !self.workers.is_empty() {
            self.begun = true;
            let workers = self.workers.len().min(MAX_PART_WORKERS);
            let workers = self.workers.drain(..workers).collect();
            return Ok(Some(v1::WatchSnapshot { workers, tasks: Vec::new() }));
        }
        while self.tasks.is_empty() && !self.is_read {
            self.read().await?;
        }
        let mut part = v1::WatchSnapshot::default();
        let mut bytes = 0;
        while let Some(task) = self.tasks.front() {
            bytes += task.encoded_len();
            if bytes > MAX_PART_BYTES && !part.tasks.is_empty() {
                break;
            }
            part.tasks.extend(self.tasks.pop_front());
        }
        Ok((!part.tasks.is_empty()).then_some(part))
    }

    async fn read(&mut self) -> Result<(), store::Error> {
        let reading = self.reading.take().unwrap_or_else(|| self.look_further());
        let reading = self.reading.insert(reading);
        let read = reading.await;
        self.reading = None;
        let (tasks, next) = read?;
        self.tasks.extend(tasks.into_iter().map(convert::task));
        match next {
            Cut::Beyond(number) => self.beyond = Some(number),
            Cut::End => self.is_read = true,
        }
        Ok(())
    }

    /// Begins to read what follows.
    fn look_further(&mut self) -> BoxFuture<'static, Read> {
        let (store, filter) = (Arc::clone(&self.store), self.filter.clone());
        let Some(named) = &mut self.named else { return self.page(store, filter) };
        let some = named.drain(..named.len().min(LOOKUPS)).collect();
        look_up(store, some, named.is_empty(), filter)
    }

    fn page(&self, store: Arc<Store>, filter: Filter) -> BoxFuture<'static, Read> {
        let (beyond, asker) = (self.beyond, self.asker);
        let query =
            Query { filter, beyond, newest_first: false, limit: PAGE, omit_payloads: true, asker };
        Box::pin(async move {
            let page = store.list(query).await?;
            // A snapshot without it would tell that it is not there.
            if let Some((_, damage)) = page.damaged.into_iter().next() {
                return Err(store::Error::Damaged(damage));
            }
            Ok((page.tasks, page.next.map_or(Cut::End, Cut::Beyond)))
        })
    }
}

/// Looks up tasks by their ids; those that do not exist are not there.
fn look_up(
    store: Arc<Store>,
    tasks: Vec<TaskId>,
    is_last: bool,
    filter: Filter,
) -> BoxFuture<'static, Read> {
    Box::pin(async move {
        let (mut found, mut last) = (Vec::new(), 0);
        for id in tasks {
            last = id.number();
            match store.get(id).await {
                Ok(mut task) => {
                    task.body.payload = crate::task::Data::Empty;
                    task.attempts = Vec::new();
                    found.extend(Some(task).filter(|task| matches(&filter, task)));
                }
                Err(store::Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((found, if is_last { Cut::End } else { Cut::Beyond(last) }))
    })
}

fn matches(filter: &Filter, task: &store::Task) -> bool {
    let named = |wanted: &[String], name: &String| wanted.is_empty() || wanted.contains(name);
    filter.states.contains(&task.lifecycle.state)
        && named(&filter.queues, &task.queue)
        && named(&filter.kinds, &task.kind)
        && filter.labels.iter().all(|(key, value)| task.labels.get(key) == Some(value))
}
