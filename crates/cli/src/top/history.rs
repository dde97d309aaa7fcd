//! The rates of the last minutes.
//!
//! Owns how many are kept, and their picture of a given width. Must not know where they
//! come from.

use std::{collections::VecDeque, time::Duration};

use ratatui::symbols::bar::NINE_LEVELS as LEVELS;
use tokio::time::Instant;

/// Samples that are kept.
const KEPT: usize = 300;

/// The least time between two samples.
const SPACING: Duration = Duration::from_millis(900);

/// Columns of a picture, from nothing to the most.
const COLUMNS: [&str; 8] = [
    LEVELS.one_eighth,
    LEVELS.one_quarter,
    LEVELS.three_eighths,
    LEVELS.half,
    LEVELS.five_eighths,
    LEVELS.three_quarters,
    LEVELS.seven_eighths,
    LEVELS.full,
];

/// What was measured at a time.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    arriving: f64,
    ending: f64,
}

/// The newest samples, at most [`KEPT`].
#[derive(Clone, Debug, Default)]
pub struct History {
    samples: VecDeque<Sample>,
    /// All that were ever taken: so that columns of several samples move on as a whole.
    taken: usize,
}

impl History {
    /// Takes a sample, unless one was just taken.
    pub fn take(&mut self, at: Instant, arriving: f64, ending: f64) {
        let last = self.samples.back().map(|sample| sample.at);
        if last.is_some_and(|last| at.saturating_duration_since(last) < SPACING) {
            return;
        }
        if self.samples.len() == KEPT {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample { at, arriving, ending });
        self.taken += 1;
    }

    /// How far it goes back.
    pub fn span(&self) -> Duration {
        match (self.samples.front(), self.samples.back()) {
            (Some(first), Some(last)) => last.at.saturating_duration_since(first.at),
            _ => Duration::ZERO,
        }
    }

    /// Arrivals and endings as columns of up to `width`, to the same scale.
    pub fn pictures(&self, width: usize) -> [String; 2] {
        let arriving = self.columns(width, |sample| sample.arriving);
        let ending = self.columns(width, |sample| sample.ending);
        let most = arriving.iter().chain(&ending).copied().fold(0.0, f64::max);
        [arriving, ending].map(|columns| {
            let drawn = columns.iter().map(|value| COLUMNS[level(*value, most)]);
            drawn.collect()
        })
    }

    /// Means of as many samples a column as it takes.
    fn columns(&self, width: usize, figure: impl Fn(&Sample) -> f64) -> Vec<f64> {
        if width == 0 {
            return Vec::new();
        }
        let first = self.taken - self.samples.len();
        let each = self.samples.len().div_ceil(width).max(1);
        let mut columns: Vec<f64> = Vec::new();
        let (mut sum, mut number) = (0.0, 0_u32);
        for (place, sample) in self.samples.iter().enumerate() {
            sum += figure(sample);
            number += 1;
            let is_last = place + 1 == self.samples.len();
            if is_last || (first + place + 1).is_multiple_of(each) {
                columns.push(sum / f64::from(number));
                (sum, number) = (0.0, 0);
            }
        }
        // The oldest column may be one too many, as it is cut off anywhere.
        columns.split_off(columns.len().saturating_sub(width))
    }
}

/// Anything above zero shows.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a part of the most is between 0 and 1"
)]
fn level(value: f64, most: f64) -> usize {
    let top = COLUMNS.len() - 1;
    if most > 0.0 && value > 0.0 {
        ((value / most * top as f64).ceil() as usize).clamp(1, top)
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(rates: impl IntoIterator<Item = f64>) -> History {
        let mut history = History::default();
        let mut at = Instant::now();
        for rate in rates {
            history.take(at, rate, 0.0);
            at += Duration::from_secs(1);
        }
        history
    }

    #[test]
    fn a_sample_is_a_column_while_there_is_room() {
        let [arriving, ending] = history([0.0, 1.0, 35.0, 70.0]).pictures(10);
        assert_eq!((arriving.as_str(), ending.as_str()), ("▁▂▅█", "▁▁▁▁"));
        assert_eq!(history([]).pictures(10), ["", ""]);
        assert_eq!(history([1.0]).pictures(0), ["", ""]);
        assert_eq!(history([f64::NAN]).pictures(1), ["▁", "▁"]);
    }

    #[test]
    fn more_samples_share_columns_and_move_on_as_a_whole() {
        let rates = |taken: u32| (0..taken).map(|number| f64::from(number / 4 % 2));
        let picture = |taken| history(rates(taken)).pictures(5).map(|drawn| drawn.len() / 3)[0];
        assert_eq!([4, 5, 6, 20].map(picture), [4, 5, 3, 5]);
        assert_eq!(history(rates(20)).pictures(5)[0], "▁█▁█▁");
    }

    #[test]
    fn it_is_bounded_in_number_and_in_pace() {
        let mut history = history((0..1_000).map(f64::from));
        assert_eq!(history.samples.len(), KEPT);
        assert_eq!(history.span(), Duration::from_secs(299));
        let last = history.samples.back().expect("there are many").at;
        history.take(last + SPACING / 2, 7.0, 7.0);
        assert_eq!(history.taken, 1_000);
        for width in 0..400 {
            assert!(history.pictures(width)[0].chars().count() <= width);
        }
    }
}
