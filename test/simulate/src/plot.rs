//! How runs went, as an SVG picture: pods that wait, and addresses that are held, over time.

use std::{fmt::Write, time::Duration};

use crate::{
    cluster::{Outcome, Point},
    report::Comparison,
};

const WIDTH: f64 = 960.0;
const PANEL: f64 = 240.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 270.0;
const TOP: f64 = 56.0;
const GAP: f64 = 64.0;
/// Distinguishable also by those who do not see red and green apart (Okabe and Ito).
const COLOURS: [&str; 7] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#7f7f7f"];
/// More points than this on one line cannot be seen.
const POINTS: usize = 600;

/// One picture, with two panels for each comparison.
#[must_use]
pub fn svg(comparisons: &[Comparison]) -> String {
    let each = TOP + 2.0 * PANEL + 2.0 * GAP;
    let tops = || std::iter::successors(Some(0.0), |top| Some(top + each));
    let height = tops().nth(comparisons.len()).unwrap_or(each);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    comparisons.iter().zip(tops()).for_each(|(comparison, top)| both_panels(&mut out, comparison, top));
    out.push_str("</svg>\n");
    out
}

fn both_panels(out: &mut String, comparison: &Comparison, top: f64) {
    let title = escape(&comparison.title);
    let _ = writeln!(out, "<text x=\"{LEFT}\" y=\"{:.1}\" font-size=\"15\">{title}</text>", top + 24.0);
    let top = top + TOP;
    let waiting = |point: &Point| to_float(i64::try_from(point.waiting).unwrap_or(i64::MAX));
    let starts = comparison.runs.iter().any(|run| run.bounds.is_some());
    let right = if starts { "time until all pods run" } else { "idle addresses, p99 wait" };
    text(out, WIDTH - RIGHT + 14.0, top - 10.0, "start", right);
    panel(out, comparison, top, "pods that wait for an address", &waiting, None);
    let held = |point: &Point| to_float(point.held);
    let used = |point: &Point| to_float(point.used);
    panel(out, comparison, top + PANEL + GAP, "addresses held for pods (dashed: used)", &held, Some(&used));
}

type Value<'a> = &'a dyn Fn(&Point) -> f64;

fn panel(out: &mut String, comparison: &Comparison, top: f64, name: &str, value: Value<'_>, also: Option<Value<'_>>) {
    let curves = || comparison.runs.iter().map(|run| &run.outcome);
    let longest = curves().map(length).fold(1.0, f64::max);
    let values = curves().flat_map(|run| run.curve.points.iter().map(value));
    let most = values.fold(1.0, f64::max);
    let (step_x, step_y) = (tidy_step(longest / 8.0), tidy_step(most / 5.0));
    let (end_x, end_y) = ((longest / step_x).ceil() * step_x, (most / step_y).ceil() * step_y);
    let x = |seconds: f64| LEFT + seconds / end_x * (WIDTH - LEFT - RIGHT);
    let y = |count: f64| top + PANEL - count / end_y * PANEL;
    text(out, LEFT, top - 10.0, "start", name);
    let unit = unit_for(end_x);
    for at in ticks(step_x, end_x) {
        line(out, (x(at), top), (x(at), top + PANEL), "#e5e5e5");
        text(out, x(at), top + PANEL + 16.0, "middle", &tidy(at / unit.1));
    }
    for at in ticks(step_y, end_y) {
        line(out, (LEFT, y(at)), (x(end_x), y(at)), "#e5e5e5");
        text(out, LEFT - 8.0, y(at) + 4.0, "end", &tidy(at));
    }
    text(out, x(end_x), top + PANEL + 32.0, "end", &format!("time since the beginning, {}", unit.0));
    for (number, run) in comparison.runs.iter().enumerate() {
        let outcome = &run.outcome;
        let colour = COLOURS.get(number % COLOURS.len()).copied().unwrap_or("black");
        curve(out, outcome, &x, &|point| y(value(point)), colour, "");
        if let Some(also) = also {
            curve(out, outcome, &x, &|point| y(also(point)), colour, " stroke-dasharray=\"4 3\"");
        }
        let row = top + 14.0 + 18.0 * to_float(i64::try_from(number).unwrap_or(0));
        line(out, (WIDTH - RIGHT + 14.0, row - 4.0), (WIDTH - RIGHT + 38.0, row - 4.0), colour);
        text(out, WIDTH - RIGHT + 44.0, row, "start", &format!("{}: {}", run.manager, run.cell()));
    }
}

fn curve(
    out: &mut String,
    run: &Outcome,
    x: &dyn Fn(f64) -> f64,
    y: &dyn Fn(&Point) -> f64,
    colour: &str,
    style: &str,
) {
    let every = run.curve.points.len().div_ceil(POINTS).max(1);
    let step = run.curve.step.as_secs_f64();
    let mut path = String::new();
    for (number, point) in run.curve.points.iter().enumerate().step_by(every) {
        let at = step * to_float(i64::try_from(number).unwrap_or(0));
        // Writing to a string cannot fail.
        let _ = write!(path, "{}{:.1} {:.1}", if number == 0 { "M" } else { "L" }, x(at), y(point));
    }
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
    let power = 10_f64.powf(least.max(1.0).log10().floor());
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
        let steps: Vec<_> = [1.0, 3.0, 12.0, 51.0, 2000.0].into_iter().map(tidy_step).collect();
        assert_eq!(steps, [1.0, 5.0, 20.0, 100.0, 2000.0]);
        assert_eq!(ticks(5.0, 15.0).collect::<Vec<_>>(), [0.0, 5.0, 10.0, 15.0]);
        assert_eq!((tidy(2.50), tidy(100.0)), ("2.5".to_owned(), "100".to_owned()));
    }
}
