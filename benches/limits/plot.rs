//! Line charts, as SVG.

use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
/// Space for what stands beside the lines: left, right, above, below.
const MARGINS: [f64; 4] = [70.0, 150.0, 40.0, 50.0];
/// Apart also for who cannot tell red from green (Okabe and Ito, 2008).
const COLORS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];

/// One axis.
pub struct Axis {
    pub label: &'static str,
    /// Each step is a factor, not a difference.
    pub logarithmic: bool,
}

/// A chart: each line has its name and its points.
pub struct Chart {
    pub title: &'static str,
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<(&'static str, Vec<(f64, f64)>)>,
}

/// What an axis shows: from where to where, and where its marks are.
struct Scale {
    from: f64,
    to: f64,
    marks: Vec<f64>,
    logarithmic: bool,
}

impl Scale {
    fn of(axis: &Axis, values: impl Iterator<Item = f64> + Clone) -> Self {
        let most = values.clone().fold(f64::MIN_POSITIVE, f64::max);
        if axis.logarithmic {
            let fewest = values.filter(|value| *value > 0.0).fold(most, f64::min);
            let (first, last) = (fewest.log10().floor(), most.log10().ceil());
            let marks = std::iter::successors(Some(first), |power| Some(power + 1.0));
            let marks = marks.take_while(|power| *power <= last).map(|power| 10f64.powf(power));
            return Self {
                from: first,
                to: last.max(first + 1.0),
                marks: marks.collect(),
                logarithmic: true,
            };
        }
        // Steps of 1, 2 or 5 times a power of ten, at most seven of them.
        let unit = 10f64.powf((most / 7.0).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|times| times * unit);
        let step = step.into_iter().find(|step| most / step <= 7.0).unwrap_or(most);
        let to = (most / step).ceil() * step;
        let marks = std::iter::successors(Some(0.0), |mark| Some(mark + step));
        let marks = marks.take_while(|mark| *mark <= to + step / 2.0).collect();
        Self { from: 0.0, to, marks, logarithmic: false }
    }

    /// Where a value lies, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let value = if self.logarithmic { value.log10() } else { value };
        (value - self.from) / (self.to - self.from)
    }
}

/// A number as the marks of an axis write it.
fn short(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{} M", v / 1e6),
        v if v >= 1e3 => format!("{} k", v / 1e3),
        v => format!("{}", (v * 1e6).round() / 1e6),
    }
}

/// The chart as a picture. It has a background of its own, so that it can be read on any page.
pub fn svg(chart: &Chart) -> String {
    let [left, right, above, below] = MARGINS;
    let (width, height) = (WIDTH - left - right, HEIGHT - above - below);
    let points = || chart.lines.iter().flat_map(|(_, points)| points);
    let x = Scale::of(&chart.x, points().map(|point| point.0));
    let y = Scale::of(&chart.y, points().map(|point| point.1));
    let across = |value| left + x.place(value) * width;
    let down = |value| above + (1.0 - y.place(value)) * height;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
         <text x=\"{left}\" y=\"22\" font-size=\"15\">{}</text>\n",
        chart.title
    );
    for mark in &y.marks {
        let at = down(*mark);
        let (end, label) = (left + width, short(*mark));
        let _ = writeln!(
            text,
            "<path d=\"M{left} {at:.1}H{end}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            left - 8.0,
            at + 4.0
        );
    }
    for mark in &x.marks {
        let (at, bottom) = (across(*mark), above + height);
        let _ = writeln!(
            text,
            "<path d=\"M{at:.1} {above}V{bottom}\" stroke=\"#eee\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 18.0,
            short(*mark)
        );
    }
    let (middle, bottom) = (left + width / 2.0, HEIGHT - 12.0);
    let _ = writeln!(
        text,
        "<text x=\"{middle:.1}\" y=\"{bottom}\" text-anchor=\"middle\">{}</text>\n\
         <text transform=\"translate(16 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        chart.x.label,
        above + height / 2.0,
        chart.y.label
    );
    for ((name, points), color) in chart.lines.iter().zip(COLORS.iter().cycle()) {
        let mut path = String::new();
        for (at, (value_x, value_y)) in points.iter().enumerate() {
            let step = if at == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{step}{:.1} {:.1}", across(*value_x), down(*value_y));
        }
        let _ = writeln!(
            text,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>"
        );
        if let Some((value_x, value_y)) = points.last() {
            let _ = writeln!(
                text,
                "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{color}\">{name}</text>",
                across(*value_x) + 8.0,
                down(*value_y) + 4.0
            );
        }
    }
    text.push_str("</svg>\n");
    text
}
