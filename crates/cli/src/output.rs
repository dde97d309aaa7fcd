//! Where words go: data to stdout, everything else to stderr.
//!
//! Owns colours, the choice of text or JSON, and what is done about control
//! characters that others wrote. Must not know what is printed.

use std::{
    io::{self, BufWriter, IsTerminal as _, Write},
    sync::mpsc,
    time::Duration,
};

use clap::ValueEnum;
use console::{Style, Term, measure_text_width};

use super::problem::Problem;

/// How long the process waits, at its end, for somebody to read why.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Also into files and pipes.
    Always,
    /// Not at all.
    Never,
}

impl Color {
    /// Sets it for the whole process.
    pub fn apply(self) {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        match self {
            Self::Auto if unwanted => set_colors(false),
            Self::Auto => {}
            Self::Always => set_colors(true),
            Self::Never => set_colors(false),
        }
    }
}

fn set_colors(wanted: bool) {
    console::set_colors_enabled(wanted);
    console::set_colors_enabled_stderr(wanted);
}

/// How data looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON value, or one a line where there are several.
    Json,
}

/// `--output`, for commands that print data.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct OutputArgs {
    /// How data looks on stdout: text, or json with one value a line
    #[arg(
        short,
        long,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "FORMAT"
    )]
    pub output: Format,
}

/// Where data goes, buffered. Flushed on [`Out::flush`] and when dropped.
pub struct Out {
    writer: BufWriter<Box<dyn Write>>,
}

impl Out {
    /// To stdout.
    pub fn stdout() -> Self {
        Self::to(io::stdout())
    }

    /// To somewhere else.
    pub fn to(writer: impl Write + 'static) -> Self {
        Self { writer: BufWriter::new(Box::new(writer)) }
    }

    /// Writes one line.
    ///
    /// # Errors
    /// [`Problem::OutputClosed`] once nobody reads any more.
    pub fn line(&mut self, text: impl AsRef<str>) -> Result<(), Problem> {
        writeln!(self.writer, "{}", text.as_ref())?;
        Ok(())
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// As [`Self::line`].
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        Ok(self.writer.write_all(bytes)?)
    }

    /// Hands everything to the reader.
    ///
    /// # Errors
    /// As [`Self::line`].
    pub fn flush(&mut self) -> Result<(), Problem> {
        Ok(self.writer.flush()?)
    }
}

/// Prints one line to stdout.
///
/// # Errors
/// As [`Out::line`].
pub fn print(text: impl AsRef<str>) -> Result<(), Problem> {
    let mut out = Out::stdout();
    out.line(text)?;
    out.flush()
}

/// Tells people something beside the data. A closed stderr is nobody's concern.
pub fn note(text: impl AsRef<str>) {
    let _ = writeln!(io::stderr(), "{}", text.as_ref());
}

/// Tells people what went wrong, at the end of the process: that comes, with its exit
/// code, also if nobody reads.
pub fn error(message: &str) {
    let word = Style::new().for_stderr().red().bold().apply_to("error:");
    let text = format!("{word} {message}");
    let (done, told) = mpsc::channel::<()>();
    let tells = std::thread::Builder::new().spawn(move || {
        note(text);
        drop(done);
    });
    if tells.is_ok() {
        let _ = told.recv_timeout(LAST_WORDS);
    }
}

/// Whether people see stderr as it is written.
pub fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Whether stdout shows on a terminal, where a progress bar would be in its way.
pub fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Text that others wrote, without the power to steer a terminal: control
/// characters are spelled out.
pub fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_bidi_control(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Characters that reorder what is shown around them.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `--wide`, for commands that print tables.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct WideArgs {
    /// Leave out and cut nothing to fit the terminal, as when stdout is none
    #[arg(long)]
    pub wide: bool,
}

impl WideArgs {
    /// The columns of the screen to which lines are to be fitted; `None` where stdout is no
    /// terminal, or everything is wanted.
    pub fn room(self) -> Option<usize> {
        let size = Term::stdout().size_checked().filter(|_| stdout_is_terminal() && !self.wide);
        size.map(|(_, columns)| columns.into())
    }
}

/// `text` cut to `width` columns, with `…` in its middle where it was cut: names that differ
/// at their end stay different. It has no colours.
pub fn middle_cut(text: &str, width: usize) -> String {
    if measure_text_width(text) <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(1);
    let head = prefix(text.chars(), room.div_ceil(2));
    let tail: Vec<_> = prefix(text.chars().rev(), room / 2).chars().collect();
    let mark = if width == 0 { "" } else { "…" };
    format!("{head}{mark}{}", tail.into_iter().rev().collect::<String>())
}

/// As many characters as fit into `width` columns.
fn prefix(chars: impl Iterator<Item = char>, width: usize) -> String {
    let mut taken = 0;
    chars
        .take_while(|c| {
            taken += measure_text_width(c.encode_utf8(&mut [0; 4]));
            taken <= width
        })
        .collect()
}

/// `text` cut to `width` columns, with `…` where it was cut.
pub fn shortened(text: &str, width: usize) -> String {
    console::truncate_str(text, width, "…").into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_spelled_out() {
        assert_eq!(printable("plain, größer"), "plain, größer");
        assert_eq!(printable("a\nb\u{1b}[2J"), "a\\nb\\u{1b}[2J");
        assert_eq!(printable("\u{202e}abc"), "\\u{202e}abc");
    }

    #[test]
    fn long_text_is_cut_where_it_can_be_seen() {
        assert_eq!(shortened("abc", 3), "abc");
        assert_eq!(shortened("abcdef", 4), "abc…");
        for (width, cut) in [(9, "abcdefghi"), (8, "abcd…ghi"), (5, "ab…hi"), (2, "a…"), (0, "")]
        {
            assert_eq!(middle_cut("abcdefghi", width), cut);
        }
        assert_eq!(middle_cut("日本語日本語", 7), "日…語");
    }
}
