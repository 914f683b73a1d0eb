//! The CPU x CPU table: who is how far from whom, as a heat map in the terminal.
//!
//! Up to 16 CPUs each cell has its figure; beyond that it is a shade, so that 64 CPUs fit a
//! terminal. Colour only where standard output is a terminal; the shades need none. `picture.rs` draws
//! the same for `--svg` and `--png`.

pub(crate) mod picture;

use std::io;

use comfy_table::{Cell, CellAlignment, Color};

use crate::latency::Pair;
use crate::output::{self, human_ns};
use crate::stats;

/// Above so many CPUs a cell is a shade.
const CPUS_WITH_FIGURES: usize = 16;

/// Steps of the scale, from near to far.
const SHADES: [&str; 5] = ["  ", "░░", "▒▒", "▓▓", "██"];
const COLOURS: [Color; 5] = [
    Color::AnsiValue(29),
    Color::AnsiValue(71),
    Color::AnsiValue(143),
    Color::AnsiValue(172),
    Color::AnsiValue(124),
];

/// Prints the table of all pairs, which come row by row.
pub(crate) fn show(pairs: &[Pair]) -> io::Result<()> {
    let count = pairs.len().isqrt();
    if count == 0 {
        return Ok(());
    }
    let scale = Scale::of(pairs);
    if count <= CPUS_WITH_FIGURES {
        figures(pairs, count, &scale)?;
    } else {
        shades(pairs, count, &scale)?;
    }
    let mut p99: Vec<f64> = remote(pairs).map(|pair| pair.p99_ns).collect();
    let fewest = pairs.iter().map(|pair| pair.samples).min().unwrap_or(0);
    if p99.is_empty() {
        return output::line("One CPU: it calls itself, inline.");
    }
    output::line(format!(
        "Median of at least {fewest} waited calls per pair, from the row's CPU to the column's, \
         result back. Middle p99: {}.",
        human_ns(stats::median(&mut p99))
    ))
}

fn remote(pairs: &[Pair]) -> impl Iterator<Item = &Pair> {
    pairs.iter().filter(|pair| pair.from != pair.to)
}

fn figures(pairs: &[Pair], count: usize, scale: &Scale) -> io::Result<()> {
    let columns: Vec<String> = pairs[..count]
        .iter()
        .map(|pair| format!("to {}", pair.to))
        .collect();
    let header: Vec<&str> = std::iter::once("from CPU")
        .chain(columns.iter().map(String::as_str))
        .collect();
    let mut table = output::table(&header, &[]);
    for row in pairs.chunks(count) {
        let name = Cell::new(row[0].from).set_alignment(CellAlignment::Right);
        let cells = row.iter().map(|pair| {
            let cell = Cell::new(human_ns(pair.median_ns)).set_alignment(CellAlignment::Right);
            match scale.step(pair) {
                Some(step) => cell.fg(COLOURS[step]),
                None => cell,
            }
        });
        table.add_row(std::iter::once(name).chain(cells));
    }
    output::line(table.to_string())
}

fn shades(pairs: &[Pair], count: usize, scale: &Scale) -> io::Result<()> {
    let last = pairs[count - 1].to;
    output::line(format!("from CPU (down), to CPU 0 to {last} (across)"))?;
    for row in pairs.chunks(count) {
        let cells = row
            .iter()
            .map(|pair| scale.step(pair).map_or(" ·", |step| SHADES[step]));
        output::line(format!("{:>5} {}", row[0].from, cells.collect::<String>()))?;
    }
    let steps = scale.bounds.iter().zip(SHADES);
    let legend: Vec<String> = steps
        .map(|(bound, shade)| format!("[{shade}] to {}", human_ns(*bound)))
        .collect();
    output::line(legend.join("  "))
}

/// Which step of the scale a figure is: fifths of the figures that there are.
struct Scale {
    bounds: [f64; SHADES.len()],
}

impl Scale {
    fn of(pairs: &[Pair]) -> Self {
        let mut medians: Vec<f64> = remote(pairs).map(|pair| pair.median_ns).collect();
        let bounds = std::array::from_fn(|step| {
            stats::quantile(&mut medians, (step + 1) as f64 / SHADES.len() as f64)
        });
        Self { bounds }
    }

    /// `None` for a CPU that calls itself.
    fn step(&self, pair: &Pair) -> Option<usize> {
        let near = self
            .bounds
            .iter()
            .filter(|&&bound| pair.median_ns > bound)
            .count();
        (pair.from != pair.to).then_some(near.min(SHADES.len() - 1))
    }
}
