//! The CPU x CPU table: who is how far from whom, as a heat map in the terminal.
//!
//! Each cell has its figure while the table fits: up to 16 CPUs, fewer in a narrow terminal. Beyond
//! that a cell is a shade, two letters wide or one, so that 64 CPUs fit 80 columns. Colour only where
//! standard output is a terminal; the shades need none. `picture.rs` draws the same for `--svg`
//! and `--png`, on the same [`Scale`].

pub(crate) mod picture;
mod scale;

use std::io;

use comfy_table::{Cell, CellAlignment, Color, Table};

use crate::latency::Pair;
use crate::output::{self, human_ns};
use crate::stats;
use scale::Scale;

/// Above so many CPUs a cell is a shade, however wide the terminal is.
const CPUS_WITH_FIGURES: usize = 16;
/// Every so many columns of shades are numbered.
const NUMBERED: usize = 8;

/// Steps of the scale, from near to far.
const SHADES: [char; 5] = [' ', '░', '▒', '▓', '█'];
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
    let width = output::terminal_width().map_or(usize::MAX, usize::from);
    let table = figures(pairs, count, &scale);
    let fits = count <= CPUS_WITH_FIGURES && output::natural_width(&table) <= width;
    if fits {
        output::line(table.to_string())?;
    } else {
        shades(pairs, count, &scale, width)
            .into_iter()
            .try_for_each(output::line)?;
    }
    let fewest = pairs.iter().map(|pair| pair.samples).min().unwrap_or(0);
    let remote = pairs.iter().filter(|pair| pair.from != pair.to);
    let mut p99: Vec<f64> = remote.map(|pair| pair.p99_ns).collect();
    if p99.is_empty() {
        return output::line("One CPU: it calls itself, inline.");
    }
    let unit = if fits {
        format!(" in {}", scale.unit().1)
    } else {
        String::new()
    };
    output::line(format!(
        "Median{unit} of at least {fewest} waited calls a pair, result back; middle p99: {}.\n\
         From the row's CPU to the column's.",
        human_ns(stats::median(&mut p99))
    ))
}

/// The table with a figure in each cell.
fn figures(pairs: &[Pair], count: usize, scale: &Scale) -> Table {
    let columns = pairs[..count].iter().map(|pair| pair.to.to_string());
    let header: Vec<String> = std::iter::once("from \\ to".to_owned())
        .chain(columns)
        .collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let numbers: Vec<usize> = (0..=count).collect();
    let mut table = output::table(&header, &numbers);
    for row in pairs.chunks(count) {
        let cells = row.iter().map(|pair| {
            let cell = Cell::new(scale.figure(pair.median_ns)).set_alignment(CellAlignment::Right);
            match step(scale, pair) {
                Some(step) => cell.fg(COLOURS[step]),
                None => cell,
            }
        });
        table.add_row(std::iter::once(Cell::new(row[0].from)).chain(cells));
    }
    table
}

/// The table with a shade in each cell, as lines that fit the width if one letter a cell does.
fn shades(pairs: &[Pair], count: usize, scale: &Scale, width: usize) -> Vec<String> {
    let letters = if 6 + 2 * count <= width { 2 } else { 1 };
    let mut numbers = String::new();
    for pair in pairs[..count].iter().step_by(NUMBERED) {
        numbers += &format!("{:<1$}", pair.to, NUMBERED * letters);
    }
    let mut lines = vec![format!("{:>5} {}", "to", numbers.trim_end())];
    for row in pairs.chunks(count) {
        let cells = row.iter().map(|pair| match step(scale, pair) {
            Some(step) => SHADES[step].to_string().repeat(letters),
            None => format!("{:>letters$}", '·'),
        });
        lines.push(format!("{:>5} {}", row[0].from, cells.collect::<String>()));
    }
    let legend = SHADES.iter().enumerate().map(|(step, shade)| {
        let bound = scale.bound((step + 1) as f64 / SHADES.len() as f64);
        format!("[{shade}{shade}] to {}", human_ns(bound))
    });
    lines.push(legend.collect::<Vec<_>>().join(" "));
    lines
}

/// Which of the shades a pair has; `None` for a CPU that calls itself.
fn step(scale: &Scale, pair: &Pair) -> Option<usize> {
    let place = (scale.place(pair.median_ns) * SHADES.len() as f64) as usize;
    (pair.from != pair.to).then_some(place.min(SHADES.len() - 1))
}

#[cfg(test)]
#[expect(clippy::missing_panics_doc, reason = "a test panics to fail")]
mod tests {
    use super::*;
    use picture::tests::pairs;

    #[test]
    fn sixty_four_cpus_fit_a_terminal_of_eighty_letters() {
        let pairs = pairs(64);
        let scale = Scale::of(&pairs);
        for (width, row) in [(80, 6 + 64), (200, 6 + 128)] {
            let lines = shades(&pairs, 64, &scale, width);
            assert_eq!(lines.len(), 1 + 64 + 1, "numbers, rows, legend");
            let longest = lines.iter().map(|line| line.chars().count()).max();
            assert!(longest <= Some(width), "{}", lines.join("\n"));
            assert_eq!(lines[1].chars().count(), row);
            let column = |number: &str| lines[0].find(number).expect("it is numbered");
            assert_eq!(column("56") - column("48"), (row - 6) / 8, "{}", lines[0]);
        }
    }

    #[test]
    fn eight_cpus_fit_a_terminal_of_eighty_letters_with_their_figures() {
        let mut pairs = pairs(8);
        pairs.iter_mut().for_each(|pair| pair.median_ns = 1234.0);
        let table = figures(&pairs, 8, &Scale::of(&pairs));
        assert!(output::natural_width(&table) <= 80, "{table}");
    }

    #[test]
    fn chance_has_one_shade() {
        let mut pairs = pairs(2);
        pairs.iter_mut().for_each(|pair| pair.median_ns = 400.0);
        pairs[1].median_ns = 420.0;
        let scale = Scale::of(&pairs);
        let steps: Vec<_> = pairs.iter().map(|pair| step(&scale, pair)).collect();
        assert_eq!(steps, [None, Some(0), Some(0), None]);
    }
}
