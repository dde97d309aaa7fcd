//! The panels: a title, then as many rows as are in sight.

use console::{Style, measure_text_width};
use ratatui::layout::Rect;
use taskyard_text::quoted;

use super::super::{
    super::{
        columns::{self, fit},
        output::shortened,
        render::{events::clock_line, stats::queue_columns, workers::worker_columns},
        units::{count, frequency},
    },
    layout::Panel,
    model::Model,
};

/// Columns that a name has at least, also where that leaves no room for others.
const LEAST_NAME: usize = 8;

/// The lines of a panel in this place.
pub fn lines(model: &Model, panel: Panel, place: Rect) -> Vec<String> {
    let (width, height) = (usize::from(place.width), usize::from(place.height));
    let rows = height.saturating_sub(panel.fixed_rows().into());
    let window = model.window(panel, rows);
    let (left, right) = title(model, panel, rows);
    let mut lines = vec![rule(&left, &right, model.focus == panel, width)];
    if window.is_empty() {
        // There is none, or no room for any.
        if model.len(panel) == 0 {
            let told = nothing(model, panel);
            lines.push(Style::new().dim().apply_to(told).to_string());
        }
        return lines;
    }
    let (begin, first) = (lines.len(), window.start);
    match panel {
        Panel::Queues => {
            let queues = model.queues()[window].to_vec();
            let mut columns = queue_columns(&queues, (width / 4).max(LEAST_NAME));
            columns.pop_if(|blocks| blocks.is_empty());
            fit(&mut columns, width);
            lines.extend(columns::table(&columns).lines().map(str::to_owned));
        }
        Panel::Workers => {
            let workers = model.workers()[window].to_vec();
            let mut columns = worker_columns(&workers, (width / 6).max(LEAST_NAME));
            fit(&mut columns, width);
            lines.extend(columns::table(&columns).lines().map(str::to_owned));
        }
        Panel::Events => {
            lines.extend(model.events_shown()[window].iter().map(|event| clock_line(event)));
        }
    }
    let at = model.selected(panel, rows).filter(|_| model.focus == panel);
    // Of a table the first line is its heading.
    let heading = usize::from(panel != Panel::Events);
    if let Some(line) = at.and_then(|at| lines.get_mut(begin + heading + at - first)) {
        let plain = console::strip_ansi_codes(line).into_owned();
        *line = Style::new().reverse().apply_to(plain).to_string();
    }
    lines
}

/// What stands at the two ends of a panel's title.
fn title(model: &Model, panel: Panel, rows: usize) -> (String, String) {
    let picture = model.picture();
    let (len, window) = (model.len(panel), model.window(panel, rows));
    let counted_rows = match len {
        len if len > window.len() => {
            let [first, last, len] = [window.start + 1, window.end, len].map(|n| count(n as u64));
            format!("{first}–{last} of {len}")
        }
        _ => String::new(),
    };
    match panel {
        _ if !model.filter.is_empty() && panel != Panel::Events => {
            let name = if panel == Panel::Queues { "[1] queues" } else { "[2] workers" };
            (format!("{name} with {}", quoted(&model.filter)), counted_rows)
        }
        Panel::Queues if model.wanted.is_empty() => ("[1] queues".into(), counted_rows),
        Panel::Queues => ("[1] queues, only those named".into(), counted_rows),
        Panel::Workers => ("[2] workers".into(), counted_rows),
        Panel::Events => {
            let left = format!("[3] events, {}/s", frequency(picture.event_rate));
            let right = match (&model.no_events, len - window.end) {
                (Some(_), _) => "stopped; looking for the stream".into(),
                (None, 0) => String::new(),
                (None, newer) => format!("{} newer below", count(newer as u64)),
            };
            (left, right)
        }
    }
}

/// What to say where there are no rows.
fn nothing(model: &Model, panel: Panel) -> String {
    if !model.filter.is_empty() {
        return format!("nothing has {} in it", quoted(&model.filter));
    }
    let text = match (panel, &model.no_events) {
        (Panel::Queues, _) if model.wanted.is_empty() => "no queue has tasks",
        (Panel::Queues, _) => {
            let meant = model.meant.as_ref().map(|meant| format!("; did you mean {meant}?"));
            return format!("no queue of those names has tasks{}", meant.unwrap_or_default());
        }
        (Panel::Workers, _) => "not told yet",
        (Panel::Events, Some(why)) => why.lines().next().unwrap_or_default(),
        (Panel::Events, None) => "nothing has happened since",
    };
    text.to_owned()
}

/// A line across with a title in it: thick where the panel is looked at.
pub fn rule(left: &str, right: &str, is_focus: bool, width: usize) -> String {
    let (line, style, word) = if is_focus {
        ("━", Style::new().cyan(), Style::new().cyan().bold())
    } else {
        ("─", Style::new().dim(), Style::new().bold())
    };
    // Two columns of the line at either end, and at least one between.
    let left = shortened(left, width.saturating_sub(6));
    let left_width = measure_text_width(&left) + 4;
    let right_width = measure_text_width(right) + 4;
    let begin = format!("{} {} ", style.apply_to(line.repeat(2)), word.apply_to(left));
    let rest = width.saturating_sub(left_width);
    if right.is_empty() || right_width > rest {
        return format!("{begin}{}", style.apply_to(line.repeat(rest)));
    }
    let middle = line.repeat(rest - right_width);
    format!("{begin}{} {right} {}", style.apply_to(middle), style.apply_to(line.repeat(2)))
}
