//! `stats`: how the service is doing, once or again and again.
//!
//! Owns asking and the place where the screen is drawn; what stands on it is
//! [`screen`]'s. Must not know what the figures mean.

mod screen;

use std::{io, time::Duration};

use console::Term;
use taskyard_client::{Admin, CallRetryPolicy};
use taskyard_proto::v1::{GetStatsRequest, GetStatsResponse};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    client::ServerArgs,
    exit::Exit,
    interrupt::CtrlC,
    json,
    output::{Format, Out, OutputArgs, print, shortened},
    problem::Problem,
    units::{parse_span, span, to_wire},
    until_ctrl_c,
};

/// Columns of a screen where there is no terminal.
const PLAIN_WIDTH: usize = 80;

/// Arguments of `stats`.
#[derive(Debug, clap::Args)]
pub struct StatsArgs {
    /// The mean wait that the advice is to hold; 1ms to 24h [default: 1s]
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    target_wait: Option<Duration>,
    /// Show it again every so often, in place on a terminal, until Ctrl-C
    #[arg(
        long,
        value_name = "INTERVAL",
        num_args = 0..=1,
        default_missing_value = "2s",
        value_parser = parse_interval
    )]
    watch: Option<Duration>,
    #[command(flatten)]
    output: OutputArgs,
}

/// A span between two screens. A shorter one would show nothing new.
pub fn parse_interval(text: &str) -> Result<Duration, String> {
    const LEAST: Duration = Duration::from_millis(100);
    match parse_span(text)? {
        every if every >= LEAST => Ok(every),
        _ => Err("is too often; write 100ms or longer".into()),
    }
}

/// Shows the statistics.
pub async fn run(server: &ServerArgs, args: StatsArgs) -> Result<Exit, Problem> {
    let source = Source {
        request: GetStatsRequest { target_wait: args.target_wait.map(to_wire) },
        admin: server.connect().await?.admin(),
    };
    match args.watch {
        Some(every) => source.watch(every, args.output.output).await,
        None => until_ctrl_c(source.once(args.output.output)).await,
    }
}

struct Source {
    admin: Admin,
    request: GetStatsRequest,
}

impl Source {
    async fn ask(&self, retry_policy: CallRetryPolicy) -> Result<GetStatsResponse, Problem> {
        let ask = async |mut admin: Admin, request| admin.get_stats(request).await;
        Ok(retry_policy.ask(&self.admin, &self.request, ask).await?)
    }

    async fn once(self, format: Format) -> Result<Exit, Problem> {
        let stats = self.ask(CallRetryPolicy::BRIEF).await?;
        let width =
            Term::stdout().size_checked().map_or(PLAIN_WIDTH, |(_, columns)| columns.into());
        print(text(&stats, format, width))?;
        Ok(Exit::Ok)
    }

    /// Until Ctrl-C, which is how it is meant to end.
    async fn watch(self, every: Duration, format: Format) -> Result<Exit, Problem> {
        let mut ctrl_c = CtrlC::listen()?;
        let mut display = Display::new(every, format);
        let ended = tokio::select! {
            biased;
            () = ctrl_c.pressed() => Ok(Exit::Ok),
            ended = self.show_all(every, &mut display) => ended,
        };
        display.leave();
        ended
    }

    async fn show_all(&self, every: Duration, display: &mut Display) -> Result<Exit, Problem> {
        let mut tick = interval(every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            display.show(&self.ask(CallRetryPolicy::PATIENT).await?)?;
        }
    }
}

fn text(stats: &GetStatsResponse, format: Format, width: usize) -> String {
    match format {
        Format::Text => screen::screen(stats, width, usize::MAX),
        Format::Json => json::admin::stats(stats).to_string(),
    }
}

/// Where one screen follows the other.
enum Display {
    /// Each over the one before.
    InPlace(InPlace),
    /// One below the other.
    Below { out: Out, format: Format, first: bool },
}

impl Display {
    fn new(every: Duration, format: Format) -> Self {
        let term = Term::buffered_stdout();
        if format == Format::Text && term.is_term() {
            Self::InPlace(InPlace { term, every, drawn: 0 })
        } else {
            Self::Below { out: Out::stdout(), format, first: true }
        }
    }

    fn show(&mut self, stats: &GetStatsResponse) -> Result<(), Problem> {
        match self {
            Self::InPlace(place) => Ok(place.draw(stats)?),
            Self::Below { out, format, first } => {
                if *format == Format::Text && !std::mem::take(first) {
                    out.line("")?;
                }
                out.line(text(stats, *format, PLAIN_WIDTH))?;
                out.flush()
            }
        }
    }

    /// Leaves the last screen where it is, with the cursor below it.
    fn leave(&self) {
        if let Self::InPlace(place) = self {
            // A terminal that has gone needs no cursor.
            let _ = place.term.show_cursor().and_then(|()| place.term.flush());
        }
    }
}

/// A screen that is drawn over itself.
struct InPlace {
    term: Term,
    every: Duration,
    /// Lines of the present screen.
    drawn: usize,
}

impl InPlace {
    fn draw(&mut self, stats: &GetStatsResponse) -> io::Result<()> {
        let (rows, columns) = self.term.size();
        let (rows, columns) = (usize::from(rows), usize::from(columns));
        // Two lines for the foot, and one for the cursor.
        let body = screen::screen(stats, columns, rows.saturating_sub(3));
        let foot = format!("every {}; Ctrl-C ends", span(self.every));
        let foot = console::Style::new().dim().apply_to(foot).to_string();
        let lines: Vec<_> = body.lines().chain(["", &foot]).take(rows.saturating_sub(1)).collect();
        self.term.hide_cursor()?;
        self.term.move_cursor_up(self.drawn)?;
        for line in &lines {
            self.term.clear_line()?;
            self.term.write_line(&shortened(line, columns))?;
        }
        self.term.clear_to_end_of_screen()?;
        self.drawn = lines.len();
        self.term.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_long_enough_to_be_seen() {
        assert_eq!(parse_interval("100ms"), Ok(Duration::from_millis(100)));
        assert!(parse_interval("99ms").is_err());
        assert!(parse_interval("2").is_err());
    }

    #[test]
    fn there_is_json_beside_the_screen() {
        let stats = GetStatsResponse::default();
        let value: serde_json::Value =
            serde_json::from_str(&text(&stats, Format::Json, 80)).expect("it is JSON");
        assert_eq!(value, serde_json::json!({ "queues": [] }));
        assert!(text(&stats, Format::Text, 80).starts_with("pool "));
    }
}
