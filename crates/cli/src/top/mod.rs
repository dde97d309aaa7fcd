//! `top`: the service live on the whole screen.
//!
//! Owns the loop: it hands what comes in to the [`model`], and has that drawn when it
//! has changed, at most every [`PICTURE`]. Must not know what anything means, or how it
//! looks.

mod draw;
mod history;
mod keys;
mod layout;
mod model;
mod paint;
mod sources;
mod terminal;

use std::time::Duration;

use futures_util::StreamExt as _;
use ratatui::{
    crossterm::event::{Event as Input, EventStream},
    layout::Size,
};
use taskyard_client::{Admin, Seen};
use taskyard_proto::v1::{GetPoolResponse, GetStatsResponse};
use tokio::{
    select,
    time::{Instant, sleep_until},
};
use tonic::Status;

use super::{
    client::ServerArgs, exit::Exit, output::stdout_is_terminal, problem::Problem, program,
    stats::parse_interval,
};
use model::{Flow, Model};
use sources::{Events, Poll, Stop};
use terminal::Screen;

/// The shortest time between two pictures.
const PICTURE: Duration = Duration::from_millis(100);

/// The longest one: spans that are shown grow by themselves.
const LONGEST_PICTURE: Duration = Duration::from_secs(1);

/// Arguments of `top`.
#[derive(Debug, clap::Args)]
pub struct TopArgs {
    /// How often to ask for figures; 100ms or longer. Events come as they happen
    #[arg(long, value_name = "SPAN", default_value = "1s", value_parser = parse_interval)]
    interval: Duration,
    /// Only this queue and the events of its tasks; may be repeated
    #[arg(short = 'q', long = "queue", value_name = "QUEUE")]
    queues: Vec<String>,
}

/// Shows it until it is ended with a key or a signal.
///
/// # Errors
/// [`Exit::Usage`] where there is no terminal, [`Exit::Unavailable`] if there is no
/// server at the very start; what the terminal says.
pub async fn run(server: &ServerArgs, args: TopArgs) -> Result<Exit, Problem> {
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    if !stdout_is_terminal() || is_dumb {
        return Err(Problem::usage(
            "top draws on a terminal, and here is none that it can draw on",
        )
        .hint(&format!("for programs there is: {} stats --output json", program::name())));
    }
    let address = server.address()?.to_string();
    let client = server.connect().await?;
    // Whatever is wrong with the server at the very start is told without a screen.
    let first = sources::ask_stats(client.admin()).await?;

    let mut events = Events::new(client.clone(), args.queues.clone());
    let begun = events.next().await?;

    let mut model = Model::new(&address, args.queues);
    model.stats(Ok(first), Instant::now());
    model.seen(Ok(begun), Instant::now());
    let mut session = Session {
        model,
        stats: Poll::new(args.interval, client.admin(), |admin| {
            Box::pin(sources::ask_stats(admin))
        }),
        pool: Poll::new(args.interval, client.admin(), |admin| Box::pin(sources::ask_pool(admin))),
        events,
        stop: Stop::listen()?,
    };
    let mut screen = Screen::take()?;
    session.work(&mut screen).await
}

struct Session {
    model: Model,
    stats: Poll<Admin, GetStatsResponse>,
    pool: Poll<Admin, GetPoolResponse>,
    events: Events,
    stop: Stop,
}

/// What comes in.
enum Message {
    Stop,
    Input(Option<std::io::Result<Input>>),
    Draw,
    Stats(Result<Box<GetStatsResponse>, Status>),
    Pool(Result<GetPoolResponse, Status>),
    Seen(Result<Seen, Status>),
}

impl Session {
    async fn work(&mut self, screen: &mut Screen) -> Result<Exit, Problem> {
        let mut inputs = EventStream::new();
        let mut drawn = self.draw(screen)?;
        let mut is_changed = false;
        loop {
            let next = drawn + if is_changed { PICTURE } else { LONGEST_PICTURE };
            // In this order, so that a flood of events holds up nothing else.
            let message = select! {
                biased;
                () = self.stop.asked() => Message::Stop,
                input = inputs.next() => Message::Input(input),
                () = sleep_until(next) => Message::Draw,
                stats = self.stats.next() => Message::Stats(stats.map(Box::new)),
                pool = self.pool.next() => Message::Pool(pool),
                seen = self.events.next() => Message::Seen(seen),
            };
            let now = Instant::now();
            match message {
                Message::Stop => return Ok(Exit::Ok),
                Message::Draw => {
                    drawn = self.draw(screen)?;
                    is_changed = false;
                    continue;
                }
                Message::Input(input) => {
                    if self.input(input)? == Flow::Quit {
                        return Ok(Exit::Ok);
                    }
                }
                Message::Stats(stats) => self.model.stats(stats.map(|stats| *stats), now),
                Message::Pool(pool) => self.model.pool(pool),
                Message::Seen(seen) => self.model.seen(seen, now),
            }
            is_changed = true;
        }
    }

    fn input(&mut self, input: Option<std::io::Result<Input>>) -> Result<Flow, Problem> {
        match input {
            Some(Ok(Input::Key(key))) => {
                let read = if self.model.is_writing { keys::written } else { keys::command };
                Ok(read(key).map_or(Flow::GoOn, |command| self.model.command(command)))
            }
            Some(Ok(Input::Resize(width, height))) => {
                self.model.resized(Size { width, height });
                Ok(Flow::GoOn)
            }
            Some(Ok(_)) => Ok(Flow::GoOn),
            Some(Err(wrong)) => Err(terminal::gone(&wrong)),
            // Nobody is there any more who could press a key.
            None => Ok(Flow::Quit),
        }
    }

    fn draw(&mut self, screen: &mut Screen) -> Result<Instant, Problem> {
        let now = Instant::now();
        self.model.resized(screen.size()?);
        screen.draw(|frame| draw::draw(frame, &self.model, now))?;
        // The time that drawing takes is no part of the rest before the next picture.
        Ok(Instant::now())
    }
}
