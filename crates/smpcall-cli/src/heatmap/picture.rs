//! The heat map as a picture: a cell per pair of CPUs, and the scale below.
//!
//! Cells are as large as the number of CPUs allows; they carry their figure while it fits, and every so
//! many CPUs are numbered.

use super::scale::Scale;
use crate::latency::Pair;
use crate::output::human_ns;
use crate::svg::{Anchor, Area, MARGIN, Paint, Picture, TEXT, TOP, text_width};

/// The side of all cells together, if the cells stay within their limits.
const SIDE: f64 = 640.0;
const SMALLEST: f64 = 6.0;
const LARGEST: f64 = 96.0;
/// A picture has at most so many CPUs: a million cells no viewer would show.
pub(crate) const MOST_CPUS: usize = 512;
/// Up to so many a cell tells its figures at the mouse.
const CPUS_WITH_HINTS: usize = 128;
/// The scale: its width and its height.
const SCALE: (f64, f64) = (260.0, 12.0);

/// Draws the pairs, which come row by row.
pub(crate) fn draw(pairs: &[Pair]) -> Picture {
    let grid = Grid::of(pairs);
    let mut picture = Picture::new(
        grid.left + grid.side() + MARGIN,
        grid.top + grid.side() + 90.0,
        "A waited call from CPU to CPU, result back",
        &subtitle(pairs),
    );
    grid.axes(&mut picture, pairs);
    for (index, pair) in pairs.iter().enumerate() {
        grid.cell(&mut picture, index, pair);
    }
    grid.legend(&mut picture);
    picture
}

fn subtitle(pairs: &[Pair]) -> String {
    let fewest = pairs.iter().map(|pair| pair.samples).min().unwrap_or(0);
    format!("median round trip of at least {fewest} calls a pair")
}

struct Grid {
    count: usize,
    cell: f64,
    left: f64,
    top: f64,
    scale: Scale,
}

impl Grid {
    fn of(pairs: &[Pair]) -> Self {
        let count = pairs.len().isqrt();
        let label = pairs
            .last()
            .map_or(0.0, |pair| text_width(&pair.from.to_string()));
        Self {
            count,
            cell: (SIDE / count.max(1) as f64)
                .clamp(SMALLEST, LARGEST)
                .floor(),
            left: MARGIN + 2.0 * TEXT + label,
            top: TOP + 3.0 * TEXT,
            scale: Scale::of(pairs),
        }
    }

    fn side(&self) -> f64 {
        self.cell * self.count as f64
    }

    fn middle_of(&self, index: usize) -> f64 {
        (index as f64 + 0.5) * self.cell
    }

    fn axes(&self, picture: &mut Picture, pairs: &[Pair]) {
        let across = (self.left, self.top - 2.0 * TEXT);
        picture.text(across, Anchor::Start, Paint::Faint, "to CPU");
        let down = (MARGIN, self.top - 0.6 * TEXT);
        picture.text(down, Anchor::Start, Paint::Faint, "from");
        let widest = pairs
            .last()
            .map_or(0.0, |pair| text_width(&pair.to.to_string()));
        let every = step((widest + TEXT).max(1.5 * TEXT) / self.cell);
        for index in (0..self.count).step_by(every) {
            let name = pairs[index].to.to_string();
            let x = self.left + self.middle_of(index);
            picture.text(
                (x, self.top - 0.6 * TEXT),
                Anchor::Middle,
                Paint::Ink,
                &name,
            );
            let y = self.top + self.middle_of(index) + 0.35 * TEXT;
            picture.text((self.left - 0.6 * TEXT, y), Anchor::End, Paint::Ink, &name);
        }
    }

    fn cell(&self, picture: &mut Picture, index: usize, pair: &Pair) {
        let (row, column) = (index / self.count, index % self.count);
        let own = pair.from == pair.to;
        let paint = if own {
            Paint::Grid
        } else {
            Paint::heat(self.scale.place(pair.median_ns))
        };
        let gap = if self.cell > 12.0 { 1.0 } else { 0.0 };
        let area = Area {
            x: self.left + column as f64 * self.cell,
            y: self.top + row as f64 * self.cell,
            width: self.cell - gap,
            height: self.cell - gap,
        };
        let (median, p99) = (human_ns(pair.median_ns), human_ns(pair.p99_ns));
        let (from, to) = (pair.from, pair.to);
        let hint = match self.count {
            ..=CPUS_WITH_HINTS => format!("CPU {from} to CPU {to}: median {median}, p99 {p99}"),
            _ => String::new(),
        };
        picture.rect(area, paint, &hint);
        let place = (
            self.left + self.middle_of(column),
            self.top + self.middle_of(row) + 0.35 * TEXT,
        );
        if self.has_figures() {
            let figure = self.scale.figure(pair.median_ns);
            picture.text(place, Anchor::Middle, paint.on(), &figure);
        }
    }

    /// Do the cells have room for their figures?
    fn has_figures(&self) -> bool {
        let (_, _, letters) = self.scale.unit();
        (letters as f64 + 1.0) * text_width("0") < self.cell
    }

    fn legend(&self, picture: &mut Picture) {
        let top = self.top + self.side() + 20.0;
        if self.count < 2 {
            let place = (MARGIN, top + TEXT);
            return picture.text(
                place,
                Anchor::Start,
                Paint::Faint,
                "one CPU: it calls itself, inline",
            );
        }
        const STEPS: usize = 52;
        let (width, height) = SCALE;
        for step in 0..STEPS {
            let area = Area {
                x: MARGIN + width * step as f64 / STEPS as f64,
                y: top,
                width: width / STEPS as f64 + 0.5,
                height,
            };
            picture.rect(area, Paint::heat(step as f64 / (STEPS - 1) as f64), "");
        }
        let below = top + height + 1.4 * TEXT;
        let figures = [
            (0.0, Anchor::Start),
            (0.5, Anchor::Middle),
            (1.0, Anchor::End),
        ];
        for (part, anchor) in figures {
            let x = MARGIN + part * width;
            picture.line((x, top), (x, top + height + 4.0), Paint::Ink, 1.0);
            let figure = human_ns(self.scale.bound(part));
            picture.text((x, below), anchor, Paint::Ink, &figure);
        }
        let (_, unit, _) = self.scale.unit();
        let figures = if self.has_figures() {
            format!("; figures in {unit}")
        } else {
            String::new()
        };
        let words = format!("near to far{figures}; grey: itself, inline");
        let place = (MARGIN, below + 1.4 * TEXT);
        picture.text(place, Anchor::Start, Paint::Faint, &words);
    }
}

/// The next of 1, 2, 4, 8, ...
fn step(wanted: f64) -> usize {
    (wanted.ceil().max(1.0) as usize).next_power_of_two()
}

#[cfg(test)]
#[expect(clippy::missing_panics_doc, reason = "a test panics to fail")]
pub(super) mod tests {
    use super::*;
    use crate::svg::tests::legible;
    use smpcall_hosted::CpuId;

    /// Pairs of CPUs, with figures from 0.4 ns to 40 ms.
    pub(crate) fn pairs(count: u32) -> Vec<Pair> {
        let pair = |from: u32, to: u32| Pair {
            from: CpuId::new(from),
            to: CpuId::new(to),
            median_ns: 10f64.powf(f64::from((from * 7 + to * 3) % 80) / 10.0 - 0.4),
            p99_ns: 1e9,
            samples: 2000,
            wrong: 0,
        };
        let all = 0..count;
        all.flat_map(|from| (0..count).map(move |to| pair(from, to)))
            .collect()
    }

    #[test]
    fn the_heat_map_is_legible_at_any_number_of_cpus() {
        for count in [1, 2, 3, 8, 16, 64, 150] {
            legible(&draw(&pairs(count)), &format!("heat map of {count} CPUs"));
        }
    }

    #[test]
    fn pairs_that_cost_the_same_are_drawn() {
        let mut same = pairs(2);
        same.iter_mut().for_each(|pair| pair.median_ns = 100.0);
        let svg = draw(&same).svg();
        assert!(svg.contains("100 ns") && svg.contains("150 ns"));
    }

    #[test]
    fn chance_is_not_shown_as_near_and_far() {
        let mut pairs = pairs(2);
        pairs.iter_mut().for_each(|pair| pair.median_ns = 401.0);
        pairs[1].median_ns = 411.0;
        let grid = Grid::of(&pairs);
        assert!(
            grid.scale.place(411.0) < 0.1,
            "two per cent more are no distance"
        );
    }

    #[test]
    fn the_unit_is_named_where_the_cells_have_figures() {
        assert!(draw(&pairs(2)).svg().contains("figures in"));
        assert!(!draw(&pairs(64)).svg().contains("figures in"));
    }
}
