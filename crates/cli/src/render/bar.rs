//! A share of the whole as a bar.

use console::Style;

/// A bar of `width` columns, of which `share` is full, to half a column. Anything
/// above zero shows.
pub fn bar(share: f64, width: usize, full: &Style) -> String {
    let halves = halves(share, width);
    let (whole, half) = (halves / 2, halves % 2);
    let rest = width - whole - half;
    let filled = "━".repeat(whole) + if half == 1 { "╸" } else { "" };
    format!("{}{}", full.apply_to(filled), Style::new().dim().apply_to("─".repeat(rest)))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share is between 0 and 1, and a screen is narrow"
)]
fn halves(share: f64, width: usize) -> usize {
    let share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
    let halves = (share * width as f64 * 2.0).round() as usize;
    halves.max(usize::from(share > 0.0 && width > 0))
}

/// The colour of how busy something is.
pub fn load_style(share: f64) -> Style {
    match share {
        share if share >= 0.9 => Style::new().red(),
        share if share >= 0.7 => Style::new().yellow(),
        _ => Style::new().cyan(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_share() {
        let plain = |share| console::strip_ansi_codes(&bar(share, 4, &Style::new())).into_owned();
        for (share, text) in [
            (0.0, "────"),
            (0.001, "╸───"),
            (0.5, "━━──"),
            (0.6, "━━╸─"),
            (1.0, "━━━━"),
            (7.0, "━━━━"),
            (f64::NAN, "────"),
        ] {
            assert_eq!(plain(share), text, "{share}");
        }
        assert_eq!(bar(0.5, 0, &Style::new()), "");
    }
}
