//! `configure`: other settings for a queue, from now on.
//!
//! Owns the flags, and the request that they become. Must not hold anybody to the bounds
//! that it shows: the server answers with everything that is beyond them at once.

use clap::{
    Arg, ArgAction, ArgMatches, Command, FromArgMatches, builder::ValueParser, error::ErrorKind,
};
use prost_types::FieldMask;
use taskyard_client::{Admin, CallRetryPolicy};
use taskyard_domain::queue::{Field, Kind};
use taskyard_proto::{
    queue_settings::Value,
    v1::{QueueSettings, RateLimit, UpdateQueueRequest},
};
use taskyard_text::{
    closest, quoted, rate,
    units::{self, show_duration, show_size},
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

/// What is to change. The flags come from the settings that there are.
#[derive(Debug, Default)]
struct Changes {
    /// Those that are given; a rate still without its burst.
    settings: QueueSettings,
    burst: Option<u32>,
    reset: Vec<Reset>,
}

/// What goes back to its configured value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reset {
    All,
    One(Field),
}

const BURST: &str = "burst";
const RESET: &str = "reset";

impl clap::Args for Changes {
    fn augment_args(command: Command) -> Command {
        command.args(Field::ALL.into_iter().flat_map(flags)).arg(
            Arg::new(RESET)
                .long(RESET)
                .value_name("SETTING")
                .value_parser(parse_reset)
                .action(ArgAction::Append)
                .help(
                    "Take this setting back to what the configuration says, like max-running, or \
                     all; may be repeated",
                ),
        )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Changes {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut settings = QueueSettings::default();
        for field in Field::ALL {
            if let Some(value) = matches.get_one::<Value>(field.name())
                && !settings.set(field.name(), *value)
            {
                let wrong = format!("this program cannot set {}", field.name());
                return Err(clap::Error::raw(ErrorKind::InvalidValue, wrong));
            }
        }
        let burst = matches.get_one(BURST).copied();
        let reset = matches.get_many(RESET).unwrap_or_default().copied().collect();
        Ok(Self { settings, burst, reset })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The flag that sets `field`, and for a rate that of its burst.
fn flags(field: Field) -> impl Iterator<Item = Arg> {
    let kind = field.kind();
    let (value_name, parser, takes) = match &kind {
        Kind::Count(bounds) => {
            let takes = format!("; {} to {}", bounds.start(), bounds.end());
            ("COUNT", count_parser(field), takes)
        }
        Kind::Limit { bounds, lifted } => {
            let takes = format!("; up to {}, 0 for {lifted}", bounds.end());
            ("COUNT", count_parser(field), takes)
        }
        Kind::Size(bounds) => {
            let (least, most) = (show_size(*bounds.start()), show_size(*bounds.end()));
            ("SIZE", ValueParser::new(parse_size), format!(", like 64MiB; {least} to {most}"))
        }
        Kind::Duration(bounds) => {
            let (least, most) = (show_duration(*bounds.start()), show_duration(*bounds.end()));
            ("SPAN", ValueParser::new(parse_duration), format!("; {least} to {most}"))
        }
        Kind::Rate => {
            let takes = ", like 100/s, 30/m, 5/h, or none for no limit".into();
            ("RATE", ValueParser::new(parse_rate), takes)
        }
    };
    let own = Arg::new(field.name())
        .long(flag(field))
        .value_name(value_name)
        .value_parser(parser)
        .help(format!("{}{takes}", field.help()));
    let burst = || {
        Arg::new(BURST)
            .long(BURST)
            .value_name("COUNT")
            .requires(field.name())
            .value_parser(whole(0..=u32::MAX))
            .help("Starts that may follow at once after a pause, beside --rate [default: 1]")
    };
    std::iter::once(own).chain((kind == Kind::Rate).then(burst))
}

/// A reader of the counts for which the request has room. Which of them the setting takes is
/// for the server to say.
fn count_parser(field: Field) -> ValueParser {
    let mut largest = QueueSettings::default();
    let holds_counts = largest.set(field.name(), Value::Count(u64::MAX));
    let most = match largest.get(field.name()).filter(|_| holds_counts) {
        Some(Value::Count(most)) => most,
        _ => u64::MAX,
    };
    let parse = whole(0..=most);
    ValueParser::new(move |text: &str| parse(text).map(Value::Count))
}

fn parse_size(text: &str) -> Result<Value, String> {
    units::parse_size(text).map(Value::Count).map_err(|wrong| wrong.to_string())
}

fn parse_duration(text: &str) -> Result<Value, String> {
    parse_span(text).map(|span| Value::Duration(to_wire(span)))
}

fn parse_rate(text: &str) -> Result<Value, String> {
    let limit = |rate: Option<f64>| RateLimit {
        starts_per_second: rate.unwrap_or_default(),
        ..RateLimit::default()
    };
    rate::parse(text).map(|rate| Value::Rate(limit(rate))).map_err(|wrong| wrong.to_string())
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
    let mut settings = changes.settings;
    if let (Some(burst), Some(rate)) = (changes.burst, &mut settings.rate_limit) {
        if *rate == RateLimit::default() {
            return Err(Problem::usage("--burst belongs to a rate; --rate none is none"));
        }
        rate.burst = burst;
    }
    Ok(UpdateQueueRequest {
        queue,
        settings: Some(settings),
        update_mask: Some(FieldMask { paths }),
    })
}

impl Changes {
    /// The settings that get a value.
    fn set(&self) -> Vec<Field> {
        let given = |field: &Field| self.settings.get(field.name()).is_some();
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
    use clap::Args as _;

    use super::*;

    fn changes(given: &[&str]) -> Changes {
        let command = Changes::augment_args(Command::new("configure")).no_binary_name(true);
        let matches = command.try_get_matches_from(given).expect("they are flags");
        Changes::from_arg_matches(&matches).expect("it has them all")
    }

    fn paths(request: UpdateQueueRequest) -> Vec<String> {
        request.update_mask.map(|mask| mask.paths).unwrap_or_default()
    }

    #[test]
    fn what_is_given_is_set_and_named() {
        let changes = changes(&[
            "--max-tasks=1",
            "--max-bytes=2",
            "--max-running=0",
            "--rate=0.5/s",
            "--burst=4",
            "--weight=5",
            "--max-attempts=6",
            "--initial-backoff=7s",
            "--max-backoff=8s",
            "--attempt-timeout=9s",
        ]);
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
        let one = changes(&["--max-tasks=1", "--reset=weight"]);
        let one = request("q".into(), &one).expect("it is right");
        assert_eq!(one.settings.as_ref().and_then(|settings| settings.weight), None);
        assert_eq!(paths(one), ["max_tasks", "weight"]);
        let all = changes(&["--max-tasks=1", "--reset=all"]);
        let all = request("q".into(), &all).expect("it is right");
        assert_eq!(all.settings.as_ref().and_then(|settings| settings.max_tasks), Some(1));
        assert_eq!(paths(all), Field::ALL.map(Field::name));
    }

    #[test]
    fn contradictions_and_no_change_at_all_are_usage() {
        let given: [&[&str]; 3] =
            [&[], &["--weight=1", "--reset=weight"], &["--rate=none", "--burst=1"]];
        for given in given {
            let problem = request("q".into(), &changes(given)).expect_err("it makes no sense");
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
