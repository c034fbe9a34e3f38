//! A picture of the result.

use crate::result::{CaseOutcome, Outcome, WAYS};
use std::fmt::Write;

const WIDTH: f64 = 720.0;
const LEFT: f64 = 110.0;
const RIGHT: f64 = 190.0;
const BAR: f64 = 20.0;
const GAP: f64 = 34.0;
/// One for each way.
const COLOURS: [&str; 4] = ["#8a8f98", "#2f6db5", "#3f8f5a", "#d9822b"];
const TITLES: [&str; 4] = ["kernel", "ours, interrupts", "ours, adaptive", "ours, polling"];

/// Bars: for each kind of transfer, how many a second by each way, with the rounds' spread.
pub(crate) fn svg(outcome: &Outcome) -> String {
    let mut body = String::new();
    let mut top = 30.0;
    for case in &outcome.cases {
        top = group(&mut body, case, top);
    }
    let note = format!(
        "medians of {} rounds of {} s; lines: slowest to fastest; Linux {}, emulated",
        outcome.rounds, outcome.seconds_each, outcome.kernel
    );
    text(&mut body, LEFT, top, "start", "#666", &note);
    let height = top + 16.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

/// Draws one kind of transfer; where the next one begins.
fn group(body: &mut String, outcome: &CaseOutcome, mut top: f64) -> f64 {
    text(body, LEFT, top, "start", "#000", outcome.case.title);
    top += 8.0;
    let most = outcome.ways.values().map(|way| way.per_second.max).fold(1.0, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / most;
    for ((name, colour), title) in WAYS.iter().zip(COLOURS).zip(TITLES) {
        let Some(way) = outcome.ways.get(name) else { continue };
        let middle = top + BAR / 2.0;
        let length = way.per_second.median * scale;
        text(body, LEFT - 8.0, middle + 4.0, "end", "#000", title);
        let _ = writeln!(
            body,
            "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{length:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>",
            top + 1.0,
            BAR - 2.0
        );
        let (from, to) = (LEFT + way.per_second.min * scale, LEFT + way.per_second.max * scale);
        let _ = writeln!(
            body,
            "<path d=\"M{from:.1} {middle:.1}H{to:.1}\" stroke=\"#000\" stroke-width=\"1\"/>"
        );
        let said = format!(
            "{:.0}/s ({:.1}×), {:.0} µs CPU",
            way.per_second.median, way.times_the_kernel, way.cpu_us_each.median
        );
        text(
            body,
            LEFT + (way.per_second.max * scale).max(length) + 6.0,
            middle + 4.0,
            "start",
            "#000",
            &said,
        );
        top += BAR;
    }
    top + GAP
}

fn text(body: &mut String, x: f64, y: f64, anchor: &str, colour: &str, what: &str) {
    let what = what.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        body,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{what}</text>"
    );
}
