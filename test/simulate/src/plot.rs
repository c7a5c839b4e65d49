//! Figures as an SVG picture; of runs: pods that wait, and addresses that are held, over time.

use std::{fmt::Write, time::Duration};

use crate::{
    cluster::{Outcome, Point},
    report::{Comparison, Run},
};

const WIDTH: f64 = 960.0;
const PANEL: f64 = 240.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 270.0;
const TOP: f64 = 56.0;
const GAP: f64 = 64.0;
/// Distinguishable also by those who do not see red and green apart (Okabe and Ito).
const COLOURS: [&str; 7] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#7f7f7f"];
/// Half transparent, so that it is seen on any ground.
const GRID: &str = "#80808050";
const STYLE: &str =
    "<style>rect{fill:#fff}text{fill:#222}@media(prefers-color-scheme:dark){rect{fill:#161b22}text{fill:#ddd}}</style>";
/// More points than this on one line cannot be seen.
const POINTS: usize = 600;

/// One line of a panel.
#[derive(Debug, Clone)]
pub struct Curve {
    /// What the legend says of it. Empty: it is not in the legend.
    pub name: String,
    /// Which colour; curves of the same number have the same.
    pub colour: usize,
    /// Whether it is dashed.
    pub dashed: bool,
    /// In the order of x.
    pub points: Vec<(f64, f64)>,
}

/// One system of axes with its curves.
#[derive(Debug, Clone)]
pub struct Panel {
    /// What is on the y axis, with its unit.
    pub title: String,
    /// What is on the x axis, with its unit.
    pub x: String,
    /// What the legend says.
    pub legend: String,
    /// The curves, the first one lowest.
    pub curves: Vec<Curve>,
}

/// One picture with two panels for each comparison.
#[must_use]
pub fn svg(comparisons: &[Comparison]) -> String {
    picture(&comparisons.iter().map(|comparison| (comparison.title.clone(), panels(comparison))).collect::<Vec<_>>())
}

/// One picture: under each title its panels. Readable on light and on dark ground.
#[must_use]
pub fn picture(groups: &[(String, Vec<Panel>)]) -> String {
    let mut body = String::new();
    let mut top = 0.0;
    for (title, panels) in groups {
        let _ = writeln!(body, "<text x=\"{LEFT}\" y=\"{:.1}\" font-size=\"15\">{}</text>", top + 24.0, escape(title));
        top += TOP;
        for panel in panels {
            draw(&mut body, panel, top);
            top += PANEL + GAP;
        }
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{top}\" viewBox=\"0 0 {WIDTH} {top}\" font-family=\"sans-serif\" font-size=\"12\">\n{STYLE}\n<rect width=\"100%\" height=\"100%\"/>\n{body}</svg>\n"
    )
}

fn panels(comparison: &Comparison) -> Vec<Panel> {
    let starts = comparison.runs.iter().any(|run| run.bounds.is_some());
    let right = if starts { "time until all pods run" } else { "idle addresses, p99 wait" };
    let longest = comparison.runs.iter().map(|run| length(&run.outcome)).fold(1.0, f64::max);
    let (unit, seconds) = unit_for(longest);
    let curve = |number: usize, run: &Run, value: Value<'_>, dashed: bool| Curve {
        name: if dashed { String::new() } else { format!("{}: {}", run.manager, run.cell()) },
        colour: number,
        dashed,
        points: points(&run.outcome, seconds, value),
    };
    let panel = |title: &str, legend: &str, value: Value<'_>, also: Option<Value<'_>>| {
        let runs = || comparison.runs.iter().enumerate();
        let dashed = also.map(|also| runs().map(|(number, run)| curve(number, run, also, true)).collect::<Vec<_>>());
        let curves = runs().map(|(number, run)| curve(number, run, value, false)).chain(dashed.into_iter().flatten());
        let x = format!("time since the beginning, {unit}");
        Panel { title: title.to_owned(), x, legend: legend.to_owned(), curves: curves.collect() }
    };
    let waiting = |point: &Point| to_float(i64::try_from(point.waiting).unwrap_or(i64::MAX));
    let held = |point: &Point| to_float(point.held);
    let used = |point: &Point| to_float(point.used);
    vec![
        panel("pods that wait for an address", right, &waiting, None),
        panel("addresses held for pods (dashed: used)", "", &held, Some(&used)),
    ]
}

type Value<'a> = &'a dyn Fn(&Point) -> f64;

fn points(run: &Outcome, unit: f64, value: Value<'_>) -> Vec<(f64, f64)> {
    let every = run.curve.points.len().div_ceil(POINTS).max(1);
    let step = run.curve.step.as_secs_f64() / unit;
    let points = run.curve.points.iter().enumerate().step_by(every);
    points.map(|(number, point)| (step * to_float(i64::try_from(number).unwrap_or(0)), value(point))).collect()
}

fn draw(out: &mut String, panel: &Panel, top: f64) {
    let all = || panel.curves.iter().flat_map(|curve| curve.points.iter());
    let axis = |most: f64, parts: f64| {
        let step = tidy_step(most / parts);
        (step, (most / step).ceil().max(1.0) * step)
    };
    let (step_x, end_x) = axis(all().map(|point| point.0).fold(f64::MIN_POSITIVE, f64::max), 8.0);
    let (step_y, end_y) = axis(all().map(|point| point.1).fold(f64::MIN_POSITIVE, f64::max), 5.0);
    let x = |value: f64| LEFT + value / end_x * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| top + PANEL - value / end_y * PANEL;
    text(out, LEFT, top - 10.0, "start", &panel.title);
    text(out, WIDTH - RIGHT + 14.0, top - 10.0, "start", &panel.legend);
    for at in ticks(step_x, end_x) {
        line(out, (x(at), top), (x(at), top + PANEL), GRID);
        text(out, x(at), top + PANEL + 16.0, "middle", &tidy(at));
    }
    for at in ticks(step_y, end_y) {
        line(out, (LEFT, y(at)), (x(end_x), y(at)), GRID);
        text(out, LEFT - 8.0, y(at) + 4.0, "end", &tidy(at));
    }
    text(out, x(end_x), top + PANEL + 32.0, "end", &panel.x);
    let mut row = top + 14.0;
    for curve in &panel.curves {
        let colour = COLOURS.get(curve.colour % COLOURS.len()).copied().unwrap_or("black");
        path(out, curve, &x, &y, colour);
        if !curve.name.is_empty() {
            line(out, (WIDTH - RIGHT + 14.0, row - 4.0), (WIDTH - RIGHT + 38.0, row - 4.0), colour);
            text(out, WIDTH - RIGHT + 44.0, row, "start", &curve.name);
            row += 18.0;
        }
    }
}

fn path(out: &mut String, curve: &Curve, x: &dyn Fn(f64) -> f64, y: &dyn Fn(f64) -> f64, colour: &str) {
    let mut path = String::new();
    for (number, (at, value)) in curve.points.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(path, "{}{:.1} {:.1}", if number == 0 { "M" } else { "L" }, x(*at), y(*value));
    }
    let style = if curve.dashed { " stroke-dasharray=\"4 3\"" } else { "" };
    let _ = writeln!(out, "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\"{style}/>");
}

fn length(run: &Outcome) -> f64 {
    let steps = u32::try_from(run.curve.points.len()).unwrap_or(u32::MAX);
    run.curve.step.saturating_mul(steps).max(Duration::from_secs(1)).as_secs_f64()
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    let (x1, y1, x2, y2) = (from.0, from.1, to.0, to.1);
    let _ = writeln!(out, "<path d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\" stroke=\"{colour}\" stroke-width=\"1.6\"/>");
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escape(text));
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// From 0 to `end`.
fn ticks(step: f64, end: f64) -> impl Iterator<Item = f64> {
    std::iter::successors(Some(0.0), move |at| Some(at + step)).take_while(move |at| *at <= end + step / 2.0)
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn tidy_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.max(1e-9).log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|factor| factor * power).find(|step| *step >= least).unwrap_or(10.0 * power)
}

fn tidy(number: f64) -> String {
    let text = format!("{number:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// What to count a time of so many seconds in.
const fn unit_for(seconds: f64) -> (&'static str, f64) {
    if seconds > 3.0 * 3600.0 { ("h", 3600.0) } else { ("s", 1.0) }
}

#[allow(clippy::cast_precision_loss, reason = "no picture shows more than 53 bits")]
const fn to_float(number: i64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_tidy_steps() {
        let steps: Vec<_> = [0.3, 1.0, 3.0, 12.0, 51.0, 2000.0].into_iter().map(tidy_step).collect();
        assert_eq!(steps, [0.5, 1.0, 5.0, 20.0, 100.0, 2000.0]);
        assert_eq!(ticks(5.0, 15.0).collect::<Vec<_>>(), [0.0, 5.0, 10.0, 15.0]);
        assert_eq!((tidy(2.50), tidy(100.0)), ("2.5".to_owned(), "100".to_owned()));
    }
}
