//! `configure`: other settings for a queue, from now on.
//!
//! Owns the flags, and the request that they become. Must not know the bounds: the
//! server answers with everything that is beyond them at once.

use std::time::Duration;

use prost_types::FieldMask;
use taskyard_client::{Admin, CallRetryPolicy};
use taskyard_domain::queue::Field;
use taskyard_proto::v1::{QueueSettings, RateLimit, UpdateQueueRequest};
use taskyard_text::{
    closest, quoted, rate,
    units::{self, Error},
};

use super::{
    client::ServerArgs,
    exit::Exit,
    output::OutputArgs,
    problem::Problem,
    queues::{say_if_new, show},
    units::{parse_span, to_wire, whole},
};

/// Arguments of `configure`.
#[derive(Debug, clap::Args)]
pub struct ConfigureArgs {
    /// The queue; one without tasks comes into being
    #[arg(value_name = "QUEUE")]
    queue: String,
    #[command(flatten)]
    changes: Changes,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Default, clap::Args)]
struct Changes {
    /// Tasks that may wait in it; 1 to 100000000
    #[arg(long, value_name = "COUNT", value_parser = whole(0..=u64::MAX))]
    max_tasks: Option<u64>,
    /// Bytes of tasks that may wait in it, like 64MiB; 1KiB to 1TiB
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    max_bytes: Option<u64>,
    /// Its tasks that may run at a time; up to 10000, 0 for no limit but the pool
    #[arg(long, value_name = "COUNT", value_parser = whole(0..=u32::MAX))]
    max_running: Option<u32>,
    /// How fast its tasks may start, like 100/s, 30/m, 5/h, or none for no limit
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    rate: Option<Limit>,
    /// Starts that may follow at once after a pause, beside --rate [default: 1]
    #[arg(long, value_name = "COUNT", requires = "rate", value_parser = whole(0..=u32::MAX))]
    burst: Option<u32>,
    /// Its share of the pool beside other queues that have work; 1 to 1000
    #[arg(long, value_name = "COUNT", value_parser = whole(0..=u32::MAX))]
    weight: Option<u32>,
    /// Attempts of its tasks unless they say; 1 to 100
    #[arg(long, value_name = "COUNT", value_parser = whole(0..=u32::MAX))]
    max_attempts: Option<u32>,
    /// The longest rest before the first retry, unless a task says; 1ms to 24h
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    initial_backoff: Option<Duration>,
    /// The longest rest before any retry, unless a task says; 1ms to 24h
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    max_backoff: Option<Duration>,
    /// How long one attempt may take, unless a task says; 1ms to 30d
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    attempt_timeout: Option<Duration>,
    /// Take this setting back to what the configuration says, like max-running, or
    /// all; may be repeated
    #[arg(long, value_name = "SETTING", value_parser = parse_reset)]
    reset: Vec<Reset>,
}

/// A rate; `None` for no limit.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Limit(Option<f64>);

/// What goes back to its configured value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reset {
    All,
    One(Field),
}

fn parse_size(text: &str) -> Result<u64, String> {
    units::parse_size(text).map_err(|wrong: Error| wrong.to_string())
}

fn parse_rate(text: &str) -> Result<Limit, String> {
    rate::parse(text).map(Limit).map_err(|wrong| wrong.to_string())
}

/// The name of a setting, as the flag or as the configuration spells it.
fn parse_reset(text: &str) -> Result<Reset, String> {
    let name = text.replace('-', "_");
    match name.as_str() {
        "all" => return Ok(Reset::All),
        "rate" => return Ok(Reset::One(Field::RateLimit)),
        _ => {}
    }
    Field::of_name(&name).map(Reset::One).ok_or_else(|| {
        let flags: Vec<_> = Field::ALL.into_iter().map(flag).collect();
        let meant = closest(text, flags.iter().map(String::as_str));
        let meant = meant.map(|meant| format!("did you mean {meant}?"));
        let all = || format!("the settings are {}, and all", flags.join(", "));
        format!("{} is not a setting; {}", quoted(text), meant.unwrap_or_else(all))
    })
}

/// A setting's flag without its dashes.
fn flag(field: Field) -> String {
    match field {
        Field::RateLimit => "rate".into(),
        other => other.name().replace('_', "-"),
    }
}

/// Changes the queue, and shows it.
pub async fn run(server: &ServerArgs, args: ConfigureArgs) -> Result<Exit, Problem> {
    let request = request(args.queue, &args.changes)?;
    let admin = server.connect().await?.admin();
    say_if_new(&admin, &request.queue).await;
    let ask = async |mut admin: Admin, request| admin.update_queue(request).await;
    let response = CallRetryPolicy::BRIEF.ask(&admin, &request, ask).await?;
    show(&response.queue.unwrap_or_default(), args.output.output)?;
    Ok(Exit::Ok)
}

fn request(queue: String, changes: &Changes) -> Result<UpdateQueueRequest, Problem> {
    let set = changes.set();
    let reset = changes.reset();
    if let Some(both) = set.iter().find(|field| changes.reset.contains(&Reset::One(**field))) {
        let flag = flag(*both);
        return Err(Problem::usage(format!("--{flag} and --reset {flag}: write one of them")));
    }
    if set.is_empty() && reset.is_empty() {
        let flags = Field::ALL.map(|field| format!("--{}", flag(field))).join(", ");
        return Err(Problem::usage(format!("nothing to change for {}", quoted(&queue)))
            .hint(&format!("write at least one of {flags} or --reset")));
    }
    let paths = Field::ALL.into_iter().filter(|field| set.contains(field) || reset.contains(field));
    let paths = paths.map(|field| field.name().to_owned()).collect();
    let burst = changes.burst.unwrap_or_default();
    let limit = |Limit(rate)| match rate {
        None => RateLimit::default(),
        Some(starts_per_second) => RateLimit { starts_per_second, burst },
    };
    if changes.rate == Some(Limit(None)) && changes.burst.is_some() {
        return Err(Problem::usage("--burst belongs to a rate; --rate none is none"));
    }
    let settings = QueueSettings {
        max_tasks: changes.max_tasks,
        max_bytes: changes.max_bytes,
        max_running: changes.max_running,
        rate_limit: changes.rate.map(limit),
        weight: changes.weight,
        max_attempts: changes.max_attempts,
        initial_backoff: changes.initial_backoff.map(to_wire),
        max_backoff: changes.max_backoff.map(to_wire),
        attempt_timeout: changes.attempt_timeout.map(to_wire),
    };
    Ok(UpdateQueueRequest {
        queue,
        settings: Some(settings),
        update_mask: Some(FieldMask { paths }),
    })
}

impl Changes {
    /// The settings that get a value.
    fn set(&self) -> Vec<Field> {
        let given = |field: &Field| match field {
            Field::MaxTasks => self.max_tasks.is_some(),
            Field::MaxBytes => self.max_bytes.is_some(),
            Field::MaxRunning => self.max_running.is_some(),
            Field::RateLimit => self.rate.is_some(),
            Field::Weight => self.weight.is_some(),
            Field::MaxAttempts => self.max_attempts.is_some(),
            Field::InitialBackoff => self.initial_backoff.is_some(),
            Field::MaxBackoff => self.max_backoff.is_some(),
            Field::AttemptTimeout => self.attempt_timeout.is_some(),
        };
        Field::ALL.into_iter().filter(given).collect()
    }

    /// The settings that go back. With `--reset all` those that are given a value
    /// keep it.
    fn reset(&self) -> Vec<Field> {
        let back = |field: &Field| {
            self.reset.contains(&Reset::All) || self.reset.contains(&Reset::One(*field))
        };
        Field::ALL.into_iter().filter(back).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(request: UpdateQueueRequest) -> Vec<String> {
        request.update_mask.map(|mask| mask.paths).unwrap_or_default()
    }

    #[test]
    fn what_is_given_is_set_and_named() {
        let changes = Changes {
            max_tasks: Some(1),
            max_bytes: Some(2),
            max_running: Some(0),
            rate: Some(Limit(Some(0.5))),
            burst: Some(4),
            weight: Some(5),
            max_attempts: Some(6),
            initial_backoff: Some(Duration::from_secs(7)),
            max_backoff: Some(Duration::from_secs(8)),
            attempt_timeout: Some(Duration::from_secs(9)),
            reset: vec![],
        };
        let span = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let request = request("mail".into(), &changes).expect("it is right");
        let settings = QueueSettings {
            max_tasks: Some(1),
            max_bytes: Some(2),
            max_running: Some(0),
            rate_limit: Some(RateLimit { starts_per_second: 0.5, burst: 4 }),
            weight: Some(5),
            max_attempts: Some(6),
            initial_backoff: span(7),
            max_backoff: span(8),
            attempt_timeout: span(9),
        };
        assert_eq!((request.queue.as_str(), &request.settings), ("mail", &Some(settings)));
        assert_eq!(paths(request), Field::ALL.map(Field::name));
    }

    #[test]
    fn what_goes_back_is_named_and_unset() {
        let reset = vec![Reset::One(Field::Weight)];
        let changes = Changes { max_tasks: Some(1), reset, ..Changes::default() };
        let one = request("q".into(), &changes).expect("it is right");
        assert_eq!(one.settings.as_ref().and_then(|settings| settings.weight), None);
        assert_eq!(paths(one), ["max_tasks", "weight"]);
        let changes = Changes { max_tasks: Some(1), reset: vec![Reset::All], ..Changes::default() };
        let all = request("q".into(), &changes).expect("it is right");
        assert_eq!(all.settings.as_ref().and_then(|settings| settings.max_tasks), Some(1));
        assert_eq!(paths(all), Field::ALL.map(Field::name));
    }

    #[test]
    fn contradictions_and_no_change_at_all_are_usage() {
        let reset = vec![Reset::One(Field::Weight)];
        for changes in [
            Changes::default(),
            Changes { weight: Some(1), reset, ..Changes::default() },
            Changes { rate: Some(Limit(None)), burst: Some(1), ..Changes::default() },
        ] {
            let problem = request("q".into(), &changes).expect_err("it makes no sense");
            assert_eq!(problem.exit(), Exit::Usage);
        }
    }

    #[test]
    fn settings_are_named_either_way() {
        for (text, field) in [
            ("max-running", Field::MaxRunning),
            ("max_running", Field::MaxRunning),
            ("rate", Field::RateLimit),
            ("rate-limit", Field::RateLimit),
        ] {
            assert_eq!(parse_reset(text), Ok(Reset::One(field)), "{text}");
        }
        assert_eq!(parse_reset("all"), Ok(Reset::All));
        let wrong = parse_reset("wieght").expect_err("it is misspelt");
        assert_eq!(wrong, "\"wieght\" is not a setting; did you mean weight?");
        let wrong = parse_reset("colour").expect_err("there is none");
        assert!(wrong.ends_with("attempt-timeout, and all"), "{wrong}");
    }
}
