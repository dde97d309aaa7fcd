//! Which tasks are meant: the flags that `list`, `cancel` and `redrive` share.
//!
//! Owns the flags and the filter that they become. Must not know what is done with
//! the tasks.

use std::collections::BTreeMap;

use jiff::Timestamp;
use taskyard_client::Client;
use taskyard_proto::v1::{TaskFilter, TaskState};
use taskyard_text::closest;

use super::{names::say_unknown, problem::Problem, units::parse_since};

/// Marks that any task has.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct FilterArgs {
    /// Only tasks of this queue; may be repeated
    #[arg(short = 'q', long = "queue", value_name = "QUEUE")]
    queues: Vec<String>,
    /// Only tasks of this kind; may be repeated
    #[arg(short = 'k', long = "kind", value_name = "KIND")]
    kinds: Vec<String>,
    /// Only tasks with this label; may be repeated, and all must match
    #[arg(short = 'l', long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Only tasks submitted at this time or later: how long ago (2h, 7d), or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = parse_past)]
    created_since: Option<prost_types::Timestamp>,
    /// Only tasks submitted before this time
    #[arg(long, value_name = "TIME", value_parser = parse_past)]
    created_before: Option<prost_types::Timestamp>,
}

/// Marks that a task has once it has ended.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct EndedArgs {
    /// Only tasks that ended at this time or later: how long ago (2h, 7d), or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = parse_past)]
    finished_since: Option<prost_types::Timestamp>,
    /// Only tasks that ended before this time
    #[arg(long, value_name = "TIME", value_parser = parse_past)]
    finished_before: Option<prost_types::Timestamp>,
}

impl FilterArgs {
    /// Tells which of the queues and kinds that are named do not exist.
    pub async fn say_unknown(&self, client: &Client) {
        say_unknown(client, &self.queues, &self.kinds).await;
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
            && self.kinds.is_empty()
            && self.labels.is_empty()
            && self.created_since.is_none()
            && self.created_before.is_none()
    }

    /// The filter for tasks in these states, which ended as `ended` says.
    ///
    /// # Errors
    /// [`super::exit::Exit::Usage`] if a label is asked to have two values.
    pub fn filter(self, states: &[TaskState], ended: EndedArgs) -> Result<TaskFilter, Problem> {
        Ok(TaskFilter {
            states: states.iter().map(|state| (*state).into()).collect(),
            queues: self.queues,
            kinds: self.kinds,
            labels: one_value_each(self.labels)?,
            created_from: self.created_since,
            created_before: self.created_before,
            finished_from: ended.finished_since,
            finished_before: ended.finished_before,
        })
    }
}

/// Labels by their keys.
///
/// # Errors
/// [`super::exit::Exit::Usage`] if one is asked to have two values.
pub fn one_value_each(labels: Vec<(String, String)>) -> Result<BTreeMap<String, String>, Problem> {
    let mut by_key = BTreeMap::new();
    for (key, value) in labels {
        let other = by_key.insert(key.clone(), value.clone());
        if let Some(other) = other.filter(|other| *other != value) {
            return Err(Problem::usage(format!(
                "--label {key}={other} and --label {key}={value}: \
                 no task has both; write one of them"
            )));
        }
    }
    Ok(by_key)
}

/// The labels of a task, by their keys.
///
/// # Errors
/// [`super::exit::Exit::Usage`] if a key is given twice, whatever its values.
pub fn given_once(labels: Vec<(String, String)>) -> Result<BTreeMap<String, String>, Problem> {
    let mut by_key = BTreeMap::new();
    for (key, value) in labels {
        if let Some(other) = by_key.get(&key) {
            return Err(Problem::usage(format!(
                "--label {key} is given twice: {key}={other} and {key}={value}; write one of them"
            )));
        }
        by_key.insert(key, value);
    }
    Ok(by_key)
}

/// Reads a label such as `customer=42`.
///
/// # Errors
/// How to write one.
pub fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE".into()),
    }
}

fn parse_past(text: &str) -> Result<prost_types::Timestamp, String> {
    parse_since(text, Timestamp::now())
}

/// Reads a state, in any case.
///
/// # Errors
/// Which ones there are.
pub fn parse_state(text: &str) -> Result<TaskState, String> {
    const STATES: [TaskState; 6] = [
        TaskState::Scheduled,
        TaskState::Queued,
        TaskState::Running,
        TaskState::Succeeded,
        TaskState::Failed,
        TaskState::Cancelled,
    ];
    one_of(&STATES, text)
}

/// [`parse_state`] of those that can be redriven.
///
/// # Errors
/// Which ones there are.
pub fn parse_dead_state(text: &str) -> Result<TaskState, String> {
    one_of(&[TaskState::Failed, TaskState::Cancelled], text)
}

/// [`parse_state`] of those that can be cancelled.
///
/// # Errors
/// Which ones there are.
pub fn parse_live_state(text: &str) -> Result<TaskState, String> {
    one_of(&LIVE, text)
}

/// The states in which a task can be cancelled.
pub const LIVE: [TaskState; 3] = [TaskState::Scheduled, TaskState::Queued, TaskState::Running];

fn one_of(states: &[TaskState], text: &str) -> Result<TaskState, String> {
    let name = |state: &TaskState| super::json::state_name(*state).to_ascii_lowercase();
    let known = states.iter().find(|state| name(state) == text.to_ascii_lowercase());
    known.copied().ok_or_else(|| {
        let names: Vec<_> = states.iter().map(name).collect();
        one_of_words(text, &names)
    })
}

/// What is said of a word that is none of `names`.
pub fn one_of_words(text: &str, names: &[String]) -> String {
    let meant = closest(&text.to_ascii_lowercase(), names.iter().map(String::as_str));
    let meant = meant.map(|meant| format!("did you mean {meant}? ")).unwrap_or_default();
    format!("{meant}write one of {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn states_are_read_in_any_case() {
        assert_eq!(parse_state("failed"), Ok(TaskState::Failed));
        assert_eq!(parse_state("QUEUED"), Ok(TaskState::Queued));
        assert!(parse_state("unspecified").is_err());
        assert_eq!(parse_dead_state("queued"), Err("write one of failed, cancelled".into()));
        assert!(parse_live_state("failed").is_err());
        let wrong = parse_state("runing").expect_err("it is misspelt");
        assert!(wrong.starts_with("did you mean running? write one of scheduled, "), "{wrong}");
    }

    #[test]
    fn labels_have_a_key() {
        assert_eq!(parse_label("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(parse_label("a="), Ok(("a".into(), String::new())));
        assert!(parse_label("a").is_err());
        assert!(parse_label("=b").is_err());
    }

    #[test]
    fn every_flag_reaches_its_own_field() {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let args = FilterArgs {
            queues: vec!["q".into()],
            kinds: vec!["k".into()],
            labels: vec![("a".into(), "b".into()), ("a".into(), "b".into())],
            created_since: at(1),
            created_before: at(2),
        };
        let ended = EndedArgs { finished_since: at(3), finished_before: at(4) };
        let expected = TaskFilter {
            states: vec![TaskState::Failed.into()],
            queues: vec!["q".into()],
            kinds: vec!["k".into()],
            labels: [("a".to_owned(), "b".to_owned())].into(),
            created_from: at(1),
            created_before: at(2),
            finished_from: at(3),
            finished_before: at(4),
        };
        assert_eq!(args.filter(&[TaskState::Failed], ended), Ok(expected));
    }

    #[test]
    fn a_label_cannot_have_two_values() {
        let labels = vec![("a".into(), "b".into()), ("a".into(), "c".into())];
        let args = FilterArgs { labels, ..FilterArgs::default() };
        let problem = args.filter(&[], EndedArgs::default()).expect_err("no task has both");
        assert_eq!(problem.exit(), Exit::Usage);
        assert!(problem.message().contains("a=b and --label a=c"), "{}", problem.message());
    }
}
