//! Rows on standard output: a table, JSON lines, or comma-separated values.
//!
//! A row is a JSON object whatever the form, so that the three say the same.

use std::io::{self, IsTerminal, Write};

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, LineStyle, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::args::Common;

/// The form that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    Human,
    /// One object a line.
    Json,
    /// A header per kind of row, then its rows.
    Csv,
}

impl Common {
    /// The form that was asked for.
    pub(crate) fn format(&self) -> Format {
        match (self.json, self.csv) {
            (true, _) => Format::Json,
            (_, true) => Format::Csv,
            _ => Format::Human,
        }
    }
}

/// Writes rows for programs; nothing if the form is for people.
pub(crate) fn rows(format: Format, rows: &[Value]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match format {
        Format::Human => {}
        Format::Json => {
            for row in rows {
                writeln!(out, "{row}")?;
            }
        }
        Format::Csv => csv(&mut out, rows)?,
    }
    out.flush()
}

/// Writes a line for people.
pub(crate) fn line(text: impl AsRef<str>) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{}", text.as_ref())
}

fn csv(out: &mut impl Write, rows: &[Value]) -> io::Result<()> {
    let mut header = None;
    for object in rows.iter().filter_map(Value::as_object) {
        let names: Vec<&str> = object.keys().map(String::as_str).collect();
        let fields: Vec<String> = object.values().map(field).collect();
        if header.as_ref() != Some(&names) {
            writeln!(out, "{}", names.join(","))?;
            header = Some(names);
        }
        writeln!(out, "{}", fields.join(","))?;
    }
    Ok(())
}

/// A value between commas; a list becomes its parts with blanks between.
fn field(value: &Value) -> String {
    let text = text(value);
    if text.contains(['"', ',', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

/// A value as people read it.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(text_of_part).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

fn text_of_part(value: &Value) -> String {
    text(value)
}

/// A text that fits a column; what is cut off is in the other forms.
pub(crate) fn brief(text: &str) -> String {
    match text.char_indices().nth(20) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A number of nanoseconds to a tenth, as JSON.
pub(crate) fn ns(value: f64) -> Value {
    ((value * 10.0).round() / 10.0).into()
}

/// A number of nanoseconds in the unit that people read.
pub(crate) fn human_ns(ns: f64) -> String {
    match ns {
        ns if ns < 100.0 => format!("{ns:.1} ns"),
        ns if ns < 10_000.0 => format!("{ns:.0} ns"),
        ns if ns < 10_000_000.0 => format!("{:.1} us", ns / 1e3),
        ns => format!("{:.1} ms", ns / 1e6),
    }
}

/// Only a terminal gets colours, and none whose user asks for none (no-color.org).
fn colours() -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !unwanted
}

/// How many letters a line of the terminal has; `None` if standard output is no terminal, or one
/// that does not say.
pub(crate) fn terminal_width() -> Option<u16> {
    Table::new().width().filter(|&letters| letters > 0)
}

/// An empty table in the program's style; the named columns are numbers.
pub(crate) fn table(header: &[&str], numbers: &[usize]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()))
        .set_header(header.to_vec());
    if !colours() {
        table.force_no_tty();
    }
    for &column in numbers {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Prints a table. Where the terminal is too narrow, the spare columns go, the first of them first, and
/// a line says which are missing; a word is broken only if that is not enough.
pub(crate) fn print(mut table: Table, spare: &[usize]) -> io::Result<()> {
    let hidden = match terminal_width() {
        Some(width) => fit(&mut table, spare, width),
        None => Vec::new(),
    };
    line(table.to_string())?;
    if hidden.is_empty() {
        return Ok(());
    }
    let names = hidden.join(", ");
    line(format!(
        "A wider terminal, --csv and --json also show: {names}."
    ))
}

/// Hides spare columns until the table fits; their headings.
fn fit(table: &mut Table, spare: &[usize], width: u16) -> Vec<String> {
    let mut spare = spare.iter();
    let mut hidden = Vec::new();
    while natural_width(table) > usize::from(width) {
        let Some(&index) = spare.next() else {
            break;
        };
        let heading = table
            .header()
            .and_then(|header| header.cell_iter().nth(index));
        hidden.extend(heading.map(comfy_table::Cell::content));
        if let Some(column) = table.column_mut(index) {
            column.set_constraint(ColumnConstraint::Hidden);
        }
    }
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(width);
    hidden
}

/// How wide a table is if no word of it is broken.
pub(crate) fn natural_width(table: &Table) -> usize {
    let widths = table.column_max_content_widths();
    let columns = widths.iter().zip(table.column_iter());
    // A blank on either side, and one between two columns.
    let shown = columns.filter(|(_, column)| !column.is_hidden());
    let sum: usize = shown.map(|(&width, _)| usize::from(width) + 3).sum();
    sum.saturating_sub(1)
}

/// A progress bar on standard error; silent where that is no terminal.
pub(crate) fn progress(total: u64, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {bar:40} {percent}% {eta} left");
    let bar = ProgressBar::new(total).with_message(what);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
#[expect(clippy::missing_panics_doc, reason = "a test panics to fail")]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn csv_has_a_header_for_each_kind_of_row_and_quotes_what_needs_it() {
        let rows = [
            json!({"a": 1, "b": [1, 2]}),
            json!({"a": 2, "b": "x,\"y\""}),
            json!({"c": null}),
        ];
        let mut out = Vec::new();
        csv(&mut out, &rows).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "a,b\n1,1 2\n2,\"x,\"\"y\"\"\"\nc\n\n");
    }

    #[test]
    fn where_the_terminal_is_narrow_columns_go_in_their_order_and_no_word_is_broken() {
        let wide = || {
            let mut table = table(&["name", "what", "note"], &[]);
            table.add_row(vec!["a_long_name", "one word", "another_long_word"]);
            table
        };
        let whole = natural_width(&wide());
        let lines = |table: &Table| table.lines().map(|line| line.chars().count()).max();
        for (width, expected) in [
            (whole, vec![]),
            (whole - 1, vec!["note"]),
            (20, vec!["note", "what"]),
        ] {
            let mut table = wide();
            assert_eq!(
                fit(&mut table, &[2, 1], width as u16),
                expected,
                "{width} letters"
            );
            assert!(lines(&table) <= Some(width), "{width} letters:\n{table}");
            assert!(table.to_string().contains("a_long_name"), "{table}");
        }
    }
}
