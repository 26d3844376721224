//! Plots as SVG text: lines over an axis that is even or logarithmic, with a grid, a legend and numbers that people can read.

use std::fmt::Write as _;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 44.0;
/// Colours that are told apart by those who see few; a baseline is the same, dashed.
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];

/// How an axis is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    Even,
    Log,
}

/// One line.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
    /// The line of the same place in the list before it, of an earlier run.
    pub(super) is_baseline: bool,
}

/// A plot.
#[derive(Clone, Debug)]
pub(super) struct Plot {
    pub(super) title: String,
    pub(super) x_name: String,
    pub(super) y_name: String,
    pub(super) x: Scale,
    pub(super) y: Scale,
    pub(super) lines: Vec<Line>,
}

/// Where a value lies between the ends of an axis, 0 to 1.
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
}

impl Axis {
    fn new(scale: Scale, values: impl Iterator<Item = f64>) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values {
            (low, high) = (low.min(value), high.max(value));
        }
        let (low, high) = match scale {
            _ if low > high => (0.0, 1.0),
            Scale::Even => (0.0, if high > 0.0 { high * 1.05 } else { 1.0 }),
            // Whole decades, at least one.
            Scale::Log => {
                let first = low.max(1.0).log10().floor();
                let last = high.max(1.0).log10().ceil().max(first + 1.0);
                (10f64.powf(first), 10f64.powf(last))
            }
        };
        Self { scale, low, high }
    }

    fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Even => (value - self.low) / (self.high - self.low),
            Scale::Log => {
                let (low, high) = (self.low.log10(), self.high.log10());
                (value.max(self.low).log10() - low) / (high - low)
            }
        }
    }

    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Log => {
                let mut ticks = vec![self.low];
                while let Some(last) = ticks.last().filter(|last| **last < self.high * 0.99) {
                    ticks.push(last * 10.0);
                }
                ticks
            }
            Scale::Even => {
                let rough = (self.high - self.low) / 5.0;
                let power = 10f64.powf(rough.log10().floor());
                let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
                let step = steps.into_iter().find(|step| *step >= rough).unwrap_or(rough);
                let ticks = (0..=6u32).map(|number| f64::from(number) * step);
                ticks.filter(|tick| *tick <= self.high).collect()
            }
        }
    }
}

/// A number with a letter for thousands.
pub(super) fn short(value: f64) -> String {
    let (value, letter) = match value.abs() {
        size if size >= 1e9 => (value / 1e9, "G"),
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = match value.abs() {
        size if size >= 100.0 || (size - size.round()).abs() < 1e-9 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}{letter}")
}

/// Text that is no markup.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

impl Plot {
    /// The plot as an element of a page; a sentence when there is nothing to draw.
    pub(super) fn svg(&self) -> String {
        let title = escape(&self.title);
        if self.lines.iter().all(|line| line.points.is_empty()) {
            return format!(
                "<figure><figcaption>{title}</figcaption><p class=none>nothing was measured</p></figure>"
            );
        }
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let x = Axis::new(self.x, points().map(|point| point.0));
        let y = Axis::new(self.y, points().map(|point| point.1));
        let (width, height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
        let at_x = |value: f64| LEFT + x.place(value) * width;
        let at_y = |value: f64| TOP + (1.0 - y.place(value)) * height;
        let mut svg = format!(
            "<figure><figcaption>{title}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">"
        );
        for tick in y.ticks() {
            let (at, text) = (at_y(tick), short(tick));
            let (end, label) = (WIDTH - RIGHT, LEFT - 6.0);
            _ = write!(
                svg,
                "<line class=grid x1={LEFT} x2={end} y1={at:.1} y2={at:.1} /><text x={label} y={at:.1} dy=4 text-anchor=end>{text}</text>"
            );
        }
        for tick in x.ticks() {
            let (at, text, below) = (at_x(tick), short(tick), HEIGHT - BOTTOM + 16.0);
            _ = write!(svg, "<text x={at:.1} y={below} text-anchor=middle>{text}</text>");
        }
        self.draw_lines(&mut svg, &at_x, &at_y);
        let (middle, foot) = (LEFT + width / 2.0, HEIGHT - 8.0);
        _ = write!(
            svg,
            "<text x={middle} y={foot} text-anchor=middle>{}</text><text x=12 y={} transform=\"rotate(-90 12 {})\" text-anchor=middle>{}</text></svg>",
            escape(&self.x_name),
            TOP + height / 2.0,
            TOP + height / 2.0,
            escape(&self.y_name)
        );
        svg.push_str(&self.legend());
        svg.push_str("</figure>");
        svg
    }

    fn draw_lines(&self, svg: &mut String, at_x: &dyn Fn(f64) -> f64, at_y: &dyn Fn(f64) -> f64) {
        for (line, colour) in self.coloured() {
            let dash = if line.is_baseline {
                " stroke-dasharray=\"4 4\""
            } else {
                ""
            };
            let path = line
                .points
                .iter()
                .map(|(x, y)| format!("{:.1},{:.1}", at_x(*x), at_y(*y)));
            let path = path.collect::<Vec<_>>().join(" ");
            _ = write!(
                svg,
                "<polyline points=\"{path}\" fill=none stroke=\"{colour}\" stroke-width=2{dash} />"
            );
            // A line of few points may be one point.
            for (x, y) in line.points.iter().filter(|_| line.points.len() <= 20) {
                _ = write!(
                    svg,
                    "<circle cx={:.1} cy={:.1} r=3 fill=\"{colour}\"><title>{}: {} at {}</title></circle>",
                    at_x(*x),
                    at_y(*y),
                    escape(&line.name),
                    short(*y),
                    short(*x)
                );
            }
        }
    }

    /// A baseline has the colour of the line before it.
    fn coloured(&self) -> impl Iterator<Item = (&Line, &'static str)> {
        let mut next = 0;
        self.lines.iter().map(move |line| {
            if !line.is_baseline {
                next += 1;
            }
            (line, COLOURS[(next.max(1) - 1) % COLOURS.len()])
        })
    }

    fn legend(&self) -> String {
        let entries = self.coloured().map(|(line, colour)| {
            let style = if line.is_baseline { "dashed" } else { "solid" };
            let name = escape(&line.name);
            format!("<span><i style=\"border-top:2px {style} {colour}\"></i>{name}</span>")
        });
        format!("<div class=legend>{}</div>", entries.collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shown: Vec<_> = [0.0, 1.0, 2.5, 9_999.0, 12_345.0, 1e6, 2.5e9].map(short).into();
        assert_eq!(shown, ["0", "1", "2.50", "9999", "12.3k", "1M", "2.50G"]);
    }

    #[test]
    fn axes_hold_all_values() {
        let axis = Axis::new(Scale::Log, [3.0, 70_000.0].into_iter());
        assert_eq!((axis.low, axis.high), (1.0, 100_000.0));
        assert_eq!(axis.ticks().len(), 6);
        let axis = Axis::new(Scale::Even, [0.0, 42.0].into_iter());
        assert!((0.0..=1.0).contains(&axis.place(42.0)));
        assert!(axis.ticks().len() >= 3);
    }

    #[test]
    fn a_plot_without_points_says_so_and_text_is_escaped() {
        let plot = Plot {
            title: "<b>".to_owned(),
            x_name: String::new(),
            y_name: String::new(),
            x: Scale::Even,
            y: Scale::Even,
            lines: Vec::new(),
        };
        assert!(plot.svg().contains("&lt;b&gt;") && plot.svg().contains("nothing was measured"));
    }
}
