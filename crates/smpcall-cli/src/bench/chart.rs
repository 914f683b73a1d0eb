//! The rows of a bench as bars: how many times its limit each takes, by placement.
//!
//! A row is `operation | who | bar | ratio | median | its limit`, and those of one operation stand
//! together, the library's first. The scale is logarithmic, for peers are ten times away where the aim
//! is a quarter. Only the bars lie on the lines of the scale, so no figure is crossed by one.

use serde_json::Value;

use crate::bench::placement::Placement;
use crate::output::human_ns;
use crate::svg::{Anchor, Area, MARGIN, Paint, Picture, TEXT, TOP, text_width};

/// From the left end of the scale to its right end, in pixels.
const WIDTH: f64 = 360.0;
/// From one bar to the next.
const STEP: f64 = 1.5 * TEXT;
/// Between two columns.
const GAP: f64 = TEXT;
/// The left end: rows may be faster than the limit, which is a measurement too.
const LEAST: f64 = 0.5;
/// Where the scale has lines, as far as it goes; the second one is what the brief allows.
const LINES: [(f64, Anchor); 5] = [
    (1.0, Anchor::End),
    (1.25, Anchor::Start),
    (10.0, Anchor::Middle),
    (100.0, Anchor::Middle),
    (1000.0, Anchor::Middle),
];
/// The right end is at least here.
const MOST: f64 = 2.0;

/// Draws the rows; the limits themselves are the line at 1.
pub(crate) fn draw(rows: &[Value]) -> Picture {
    let groups: Vec<(Placement, Vec<Bar>)> = Placement::ALL
        .into_iter()
        .map(|placement| (placement, bars(rows, placement)))
        .filter(|(_, bars)| !bars.is_empty())
        .collect();
    let all: Vec<&Bar> = groups.iter().flat_map(|(_, bars)| bars).collect();
    let chart = Chart::over(&all);
    let lines: usize = groups.iter().map(|(_, bars)| bars.len() + 2).sum();
    let mut picture = Picture::new(
        chart.columns[4] + MARGIN,
        TOP + lines as f64 * STEP + MARGIN,
        "Calls against the limits of the hardware",
        "median time as a multiple of the limit's in the same placement; shorter is better",
    );
    let mut y = TOP;
    for (placement, bars) in &groups {
        chart.scale(&mut picture, y, placement.name(), bars.len());
        let mut above = "";
        for bar in bars {
            y += STEP;
            if bar.name != above {
                let place = (MARGIN, y + TEXT);
                picture.text(place, Anchor::Start, Paint::Ink, &bar.name);
            }
            chart.bar(&mut picture, y, bar);
            above = &bar.name;
        }
        y += 2.0 * STEP;
    }
    picture
}

/// One bar and its texts.
struct Bar {
    name: String,
    who: String,
    ratio: f64,
    median: String,
    limit: String,
}

/// The bars of a placement, those of an operation together in the order in which they came.
fn bars(rows: &[Value], placement: Placement) -> Vec<Bar> {
    let here = || {
        rows.iter()
            .filter(|row| row["placement"] == placement.name())
    };
    let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
    let median = |row: &Value| human_ns(row["median_ns"].as_f64().unwrap_or(0.0));
    let mut bars: Vec<Bar> = Vec::new();
    for row in here().filter(|row| row["peer"] != "limit") {
        let is_limit = |other: &&Value| other["peer"] == "limit" && other["name"] == row["limit"];
        let limit = here().find(is_limit).map(median).unwrap_or_default();
        let bar = Bar {
            name: text(row, "name"),
            who: text(row, "peer"),
            ratio: row["ratio_to_limit"].as_f64().unwrap_or(0.0),
            median: median(row),
            limit: format!("{} {limit}", text(row, "limit")),
        };
        let last = bars.iter().rposition(|other| other.name == bar.name);
        bars.insert(last.map_or(bars.len(), |last| last + 1), bar);
    }
    bars
}

/// Where the columns end: operation, who, bars, ratio and median, limit.
struct Chart {
    columns: [f64; 5],
    most: f64,
}

impl Chart {
    fn over(bars: &[&Bar]) -> Self {
        let widest = |text: fn(&Bar) -> &str| {
            let widths = bars.iter().map(|bar| text_width(text(bar)));
            widths.fold(0.0, f64::max)
        };
        let name = MARGIN + widest(|bar| &bar.name);
        let who = name + GAP + widest(|bar| &bar.who);
        let bar = who + GAP + WIDTH;
        let figures = bar + GAP + text_width("0000.00 x  0000.0 us");
        let limit = figures + GAP + widest(|bar| &bar.limit);
        Self {
            columns: [name, who, bar, figures, limit],
            most: bars.iter().map(|bar| bar.ratio).fold(MOST, f64::max),
        }
    }

    /// How far right a ratio is.
    fn place(&self, ratio: f64) -> f64 {
        let part = (ratio.max(LEAST) / LEAST).ln() / (self.most / LEAST).ln();
        self.columns[1] + GAP + WIDTH * part
    }

    /// The heading of a placement, and the lines that its bars lie on.
    fn scale(&self, picture: &mut Picture, y: f64, placement: &str, bars: usize) {
        let base = y + TEXT;
        let mut head = |x, anchor, paint, text: &str| picture.text((x, base), anchor, paint, text);
        head(MARGIN, Anchor::Start, Paint::Ink, placement);
        head(self.columns[3], Anchor::End, Paint::Faint, "median");
        head(self.columns[3] + GAP, Anchor::Start, Paint::Faint, "limit");
        for (at, anchor) in LINES {
            if at > self.most {
                break;
            }
            let x = self.place(at);
            picture.text((x, base), anchor, Paint::Faint, &format!("{at} x"));
            let foot = base + 0.3 * TEXT + bars as f64 * STEP;
            picture.line((x, base + 0.3 * TEXT), (x, foot), Paint::Faint, 1.0);
        }
    }

    fn bar(&self, picture: &mut Picture, y: f64, bar: &Bar) {
        let [_, who, _, figures, _] = self.columns;
        let base = y + TEXT;
        picture.text((who, base), Anchor::End, Paint::Faint, &bar.who);
        let area = Area {
            x: who + GAP,
            y: y + 0.2 * TEXT,
            width: (self.place(bar.ratio) - who - GAP).max(1.0),
            height: TEXT,
        };
        let hint = format!("{} ({}): {}", bar.name, bar.who, bar.median);
        picture.rect(area, colour(&bar.who), &hint);
        let ratio = figures - text_width("  0000.0 us");
        let figure = format!("{:.2} x", bar.ratio);
        picture.text((ratio, base), Anchor::End, Paint::Ink, &figure);
        picture.text((figures, base), Anchor::End, Paint::Ink, &bar.median);
        let limit = (figures + GAP, base);
        picture.text(limit, Anchor::Start, Paint::Faint, &bar.limit);
    }
}

/// The library, what it replaces, and everybody else.
fn colour(who: &str) -> Paint {
    match who {
        "smpcall" => Paint::Series(0),
        "seed_algorithm" => Paint::Series(4),
        _ => Paint::Series(1),
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
        legible(&picture, "bench of four rows");
        let svg = picture.svg();
        assert!(svg.contains("1.20 x") && svg.contains("40.00 x") && svg.contains("0.30 x"));
        assert!(svg.contains("one_line 60.0 ns"), "the limit's own figure");
        assert_eq!(
            svg.matches("<rect").count(),
            1 + 3,
            "the page and three bars"
        );
    }

    #[test]
    fn a_whole_run_with_all_who_can_be_compared_can_be_read() {
        let names = [
            "call_polling_cold",
            "on_each_cpu_cond",
            "kick_all_cpus_sync",
            "post",
        ];
        let who = [
            "smpcall",
            "seed_algorithm",
            "crossbeam-channel",
            "sigprocmask",
            "std mpsc",
        ];
        let mut rows = Vec::new();
        for placement in ["near", "far", "smt"] {
            for (index, (name, peer)) in names
                .iter()
                .flat_map(|name| who.map(|peer| (name, peer)))
                .enumerate()
            {
                let ratio = 0.4 * 1.5f64.powi(index as i32);
                rows.push(row(name, peer, placement, ratio));
            }
        }
        legible(&draw(&rows), "bench of sixty rows");
    }

    #[test]
    fn the_bars_of_an_operation_stand_together() {
        let rows = [
            row("call_polling", "smpcall", "near", 1.2),
            row("post", "smpcall", "near", 1.0),
            row("call_polling", "kanal", "near", 9.0),
        ];
        let order = bars(&rows, Placement::Near);
        let order: Vec<_> = order.iter().map(|bar| (&*bar.name, &*bar.who)).collect();
        let expected = [
            ("call_polling", "smpcall"),
            ("call_polling", "kanal"),
            ("post", "smpcall"),
        ];
        assert_eq!(order, expected);
    }

    #[test]
    fn scales_of_any_length_can_be_read() {
        for most in [0.2, 1.0, 2.5, 9.0, 11.0, 99.0, 101.0, 4000.0] {
            let rows = [row("call_polling_cold", "crossbeam-channel", "smt", most)];
            legible(&draw(&rows), &format!("bench of {most}"));
        }
    }

    #[test]
    fn a_bench_without_rows_is_an_empty_page() {
        legible(&draw(&[]), "bench without rows");
    }
}
