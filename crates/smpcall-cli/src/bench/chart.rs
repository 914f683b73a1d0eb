//! The rows of a bench as bars: how many times its limit each takes, by placement.
//!
//! The scale is logarithmic, because peers are ten times away and the aim is a quarter; lines stand at
//! once the limit and at a quarter more. The library's own bars have a colour of their own.

use serde_json::Value;

use crate::bench::placement::Placement;
use crate::output::human_ns;
use crate::svg::{Anchor, Area, MARGIN, Paint, Picture, TEXT, TOP, text_width};

/// From the left end of the scale to its right end.
const WIDTH: f64 = 420.0;
/// From one bar to the next.
const STEP: f64 = 1.6 * TEXT;
/// The left end: rows may be faster than the limit, which is a measurement too.
const LEAST: f64 = 0.5;
/// What the brief allows.
const AIM: f64 = 1.25;

/// Draws the rows; the limits themselves are the line at 1.
pub(crate) fn draw(rows: &[Value]) -> Picture {
    let groups: Vec<(Placement, Vec<&Value>)> = Placement::ALL
        .into_iter()
        .map(|placement| (placement, bars_of(rows, placement)))
        .filter(|(_, bars)| !bars.is_empty())
        .collect();
    let bars = || groups.iter().flat_map(|(_, bars)| bars);
    let widest = bars()
        .map(|row| text_width(&label(row)))
        .fold(0.0, f64::max);
    let most = bars().map(|row| ratio(row)).fold(2.0 * AIM, f64::max);
    let lines: usize = groups.iter().map(|(_, bars)| bars.len() + 2).sum();
    let chart = Chart {
        left: MARGIN + widest + TEXT,
        most,
    };
    let mut picture = Picture::new(
        chart.left + WIDTH + 16.0 * TEXT,
        TOP + lines as f64 * STEP + MARGIN,
        "Calls against the limits of the hardware",
        "median time as a multiple of the limit in the same placement; lines at 1 and 1.25",
    );
    let mut y = TOP;
    for (placement, bars) in &groups {
        picture.text(
            (MARGIN, y + TEXT),
            Anchor::Start,
            Paint::Ink,
            placement.name(),
        );
        y += STEP;
        chart.lines(&mut picture, y, bars.len());
        for row in bars {
            chart.bar(&mut picture, y, row);
            y += STEP;
        }
        y += STEP;
    }
    picture
}

/// What a placement's bars stand for.
fn bars_of(rows: &[Value], placement: Placement) -> Vec<&Value> {
    let wanted = |row: &&Value| row["placement"] == placement.name() && row["peer"] != "limit";
    rows.iter().filter(wanted).collect()
}

fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    row[field].as_str().unwrap_or_default()
}

fn label(row: &Value) -> String {
    format!("{} {}", text(row, "name"), text(row, "peer"))
}

fn ratio(row: &Value) -> f64 {
    row["ratio_to_limit"].as_f64().unwrap_or(0.0)
}

struct Chart {
    left: f64,
    most: f64,
}

impl Chart {
    /// How far right a ratio is.
    fn place(&self, ratio: f64) -> f64 {
        WIDTH * (ratio.max(LEAST) / LEAST).ln() / (self.most / LEAST).ln()
    }

    fn lines(&self, picture: &mut Picture, y: f64, bars: usize) {
        for at in [1.0, AIM] {
            let line = Area {
                x: self.left + self.place(at),
                y,
                width: 1.0,
                height: bars as f64 * STEP,
            };
            picture.rect(line, Paint::Faint, "");
        }
    }

    fn bar(&self, picture: &mut Picture, y: f64, row: &Value) {
        let ours = text(row, "peer") == "smpcall";
        let length = self.place(ratio(row));
        let bar = Area {
            x: self.left,
            y: y + 0.2 * TEXT,
            width: length.max(1.0),
            height: TEXT,
        };
        let median = human_ns(row["median_ns"].as_f64().unwrap_or(0.0));
        let hint = format!("{}: {median}, limit {}", label(row), text(row, "limit"));
        picture.rect(bar, Paint::Series(usize::from(!ours)), &hint);
        let base = y + TEXT;
        picture.text(
            (self.left - 0.5 * TEXT, base),
            Anchor::End,
            Paint::Ink,
            &label(row),
        );
        let figure = format!("{:.2} x, {median}", ratio(row));
        let end = (self.left + length + 0.5 * TEXT, base);
        picture.text(end, Anchor::Start, Paint::Faint, &figure);
    }
}

#[cfg(test)]
#[expect(clippy::missing_panics_doc, reason = "a test panics to fail")]
mod tests {
    use super::*;
    use crate::svg::tests::legible;
    use serde_json::json;

    fn row(name: &str, peer: &str, placement: &str, ratio: f64) -> Value {
        json!({"name": name, "peer": peer, "placement": placement, "median_ns": 60.0 * ratio,
               "ratio_to_limit": ratio, "limit": "one_line"})
    }

    #[test]
    fn every_row_but_the_limits_has_a_bar_that_can_be_read() {
        let rows = [
            row("one_line", "limit", "near", 1.0),
            row("call_polling", "smpcall", "near", 1.2),
            row("call_polling_cold", "crossbeam-channel", "near", 40.0),
            row("call_polling", "smpcall", "far", 0.3),
        ];
        let picture = draw(&rows);
        legible(&picture, "four rows");
        let svg = picture.svg();
        assert!(svg.contains("1.20 x") && svg.contains("40.00 x") && svg.contains("0.30 x"));
        assert!(!svg.contains("one_line limit"));
    }

    #[test]
    fn a_bench_without_rows_is_an_empty_page() {
        legible(&draw(&[]), "no rows");
    }
}
