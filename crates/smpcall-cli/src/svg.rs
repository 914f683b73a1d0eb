//! Pictures: shapes and text as an SVG file that is right on light and dark pages, or as a PNG.
//!
//! A picture is a list of shapes with [`Paint`]s. A paint that belongs to the page (its ground, ink,
//! faint lines) is a CSS class with a second value for readers who prefer dark, so one file
//! serves both. A paint that carries a figure is a colour of its own, the same on
//! both grounds. All text is in one monospaced font, so its width is known: [`text_width`]. The PNG
//! is drawn from the same SVG, with a font that the program brings along, and is light.
//!
//! To draw: make a [`Picture`] with its size and title, add shapes, and give it to
//! [`Pictures::write`], which is what `--svg FILE` and `--png FILE` were parsed into (flatten a
//! [`Pictures`] into the options of a command; call [`Pictures::check`] before measuring). Axes and
//! labels name their units; a `hint` is what a browser shows at the mouse.
//!
//! ```text
//! let mut picture = Picture::new(400.0, 120.0, "Round trip (ns)", "median of 1000");
//! picture.rect(Area { x: 20.0, y: 60.0, width: 80.0, height: 20.0 }, Paint::heat(0.3), "near: 55 ns");
//! picture.text((20.0, 100.0), Anchor::Start, Paint::Ink, "near");
//! options.pictures.write(&picture)?;
//! ```

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args as Group;
use resvg::usvg::fontdb::Database;
use resvg::{tiny_skia, usvg};

use crate::Failure;

/// The height of ordinary text, in pixels.
pub(crate) const TEXT: f64 = 12.0;
/// Where the picture's own part begins, below title and subtitle.
pub(crate) const TOP: f64 = 64.0;
/// The room around everything.
pub(crate) const MARGIN: f64 = 20.0;
/// The title's height.
const TITLE: f64 = 16.0;
/// A letter's width by its height, in the font that is brought along and in its usual stand-ins.
const LETTER: f64 = 0.602;
/// Pixels of the PNG per unit of the picture.
const PNG_SCALE: f32 = 2.0;

/// How wide a text of ordinary size is.
pub(crate) fn text_width(text: &str) -> f64 {
    text.chars().count() as f64 * TEXT * LETTER
}

/// Where the pictures go; parsed from the command line.
#[derive(Debug, Clone, Default, Group)]
pub(crate) struct Pictures {
    /// Draw a picture: an SVG file that is right on light and dark pages
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Draw the same picture as a PNG file
    #[arg(long, value_name = "FILE")]
    pub(crate) png: Option<PathBuf>,
}

impl Pictures {
    /// Can the files be written? Asked before the work that is drawn.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let files = [("--svg", &self.svg), ("--png", &self.png)];
        for (option, file) in files {
            if let Some(file) = file {
                check_file(option, file)?;
            }
        }
        Ok(())
    }

    /// Is a picture wanted at all?
    pub(crate) fn any(&self) -> bool {
        self.svg.is_some() || self.png.is_some()
    }

    /// Writes the files that were asked for.
    pub(crate) fn write(&self, picture: &Picture) -> Result<(), Failure> {
        if let Some(file) = &self.svg {
            fs::write(file, picture.svg())?;
        }
        if let Some(file) = &self.png {
            fs::write(file, picture.png()?)?;
        }
        Ok(())
    }
}

/// Refuses a file that cannot be written; keeps what is in it.
pub(crate) fn check_file(option: &str, file: &Path) -> Result<(), Failure> {
    let opened = fs::OpenOptions::new().append(true).create(true).open(file);
    opened.map(drop).map_err(|error| {
        Failure::Usage(format!(
            "{option} {}: cannot be written: {error}",
            file.display()
        ))
    })
}

/// What a shape is painted with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Paint {
    /// The page's own ground.
    Page,
    /// Text and outlines.
    Ink,
    /// Text that explains.
    Faint,
    /// Grid lines and empty cells.
    Grid,
    /// One of [`SERIES`] kinds of thing, told apart by colour; beyond the last it starts again.
    Series(usize),
    /// A colour that means a figure, the same on any ground.
    Colour(u8, u8, u8),
}

/// How many kinds of thing have a colour of their own.
pub(crate) const SERIES: usize = 6;

/// Class, light, dark.
const CLASSES: [(&str, &str, &str); 4 + SERIES] = [
    ("page", "#ffffff", "#14171c"),
    ("ink", "#1b1f24", "#e6e9ee"),
    ("faint", "#5b6570", "#9aa4b0"),
    ("grid", "#e3e7eb", "#2d333b"),
    ("s0", "#2b6cb0", "#63a4e8"),
    ("s1", "#c05621", "#f0904f"),
    ("s2", "#2f855a", "#56c28a"),
    ("s3", "#b83280", "#e879b9"),
    ("s4", "#6b46c1", "#a78bfa"),
    ("s5", "#8a6d1d", "#d4b94e"),
];

/// From near to far: dark blue, teal, green, yellow; a reader who tells no colours sees lightness.
const HEAT: [[f64; 3]; 5] = [
    [59.0, 28.0, 112.0],
    [48.0, 91.0, 140.0],
    [31.0, 145.0, 140.0],
    [108.0, 190.0, 89.0],
    [246.0, 222.0, 76.0],
];

impl Paint {
    /// A figure between 0 (little) and 1 (much) on the scale of a heat map.
    pub(crate) fn heat(figure: f64) -> Self {
        let place = figure.clamp(0.0, 1.0) * (HEAT.len() - 1) as f64;
        let step = (place as usize).min(HEAT.len() - 2);
        let part = place - step as f64;
        let mix = |i: usize| (HEAT[step][i] * (1.0 - part) + HEAT[step + 1][i] * part) as u8;
        Self::Colour(mix(0), mix(1), mix(2))
    }

    /// What text on this ground is painted with.
    pub(crate) fn on(self) -> Self {
        match self {
            Self::Colour(red, green, blue) => {
                let light =
                    0.299 * f64::from(red) + 0.587 * f64::from(green) + 0.114 * f64::from(blue);
                if light > 130.0 {
                    Self::Colour(16, 18, 20)
                } else {
                    Self::Colour(255, 255, 255)
                }
            }
            _ => Self::Ink,
        }
    }

    /// As the attribute that fills a shape, or draws its line.
    fn attribute(self, what: Use) -> String {
        let (class, colour) = match what {
            Use::Fill => ("f", "fill"),
            Use::Line => ("l", "stroke"),
        };
        match self {
            Self::Page => format!("class=\"{class}-page\""),
            Self::Ink => format!("class=\"{class}-ink\""),
            Self::Faint => format!("class=\"{class}-faint\""),
            Self::Grid => format!("class=\"{class}-grid\""),
            Self::Series(kind) => format!("class=\"{class}-s{}\"", kind % SERIES),
            Self::Colour(red, green, blue) => {
                format!("{colour}=\"#{red:02x}{green:02x}{blue:02x}\"")
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Use {
    Fill,
    Line,
}

/// Which end of a text is at its place.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

impl Anchor {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }
}

/// A rectangle's place; `y` grows downwards.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Area {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) width: f64,
    pub(crate) height: f64,
}

/// A place: right, down.
pub(crate) type Point = (f64, f64);

/// A picture in the making.
#[derive(Debug, Clone)]
pub(crate) struct Picture {
    width: f64,
    height: f64,
    title: String,
    body: String,
}

impl Picture {
    /// An empty page with a title and a line that explains it.
    pub(crate) fn new(width: f64, height: f64, title: &str, subtitle: &str) -> Self {
        let needed = |text: &str, size: f64| 2.0 * MARGIN + text_width(text) * size / TEXT;
        let width = width
            .max(needed(title, TITLE))
            .max(needed(subtitle, TEXT))
            .ceil();
        let mut picture = Self {
            width,
            height: height.ceil(),
            title: title.to_owned(),
            body: String::new(),
        };
        picture.text_of(
            TITLE,
            (MARGIN, MARGIN + 10.0),
            Anchor::Start,
            Paint::Ink,
            title,
        );
        let below = (MARGIN, MARGIN + 30.0);
        picture.text(below, Anchor::Start, Paint::Faint, subtitle);
        picture
    }

    /// A filled rectangle; `hint` is shown at the mouse, unless empty.
    pub(crate) fn rect(&mut self, area: Area, paint: Paint, hint: &str) {
        let Area {
            x,
            y,
            width,
            height,
        } = area;
        let fill = paint.attribute(Use::Fill);
        let title = if hint.is_empty() {
            String::new()
        } else {
            format!("<title>{}</title>", escaped(hint))
        };
        self.push(format_args!(
            "<rect x=\"{x:.2}\" y=\"{y:.2}\" width=\"{width:.2}\" height=\"{height:.2}\" {fill}>{title}</rect>"
        ));
    }

    /// A line.
    pub(crate) fn line(&mut self, from: Point, to: Point, paint: Paint, width: f64) {
        let stroke = paint.attribute(Use::Line);
        self.push(format_args!(
            "<line x1=\"{:.2}\" y1=\"{:.2}\" x2=\"{:.2}\" y2=\"{:.2}\" stroke-width=\"{width}\" {stroke}/>",
            from.0, from.1, to.0, to.1
        ));
    }

    /// Text of ordinary size; its base line is at the place.
    pub(crate) fn text(&mut self, place: Point, anchor: Anchor, paint: Paint, text: &str) {
        self.text_of(TEXT, place, anchor, paint, text);
    }

    fn text_of(&mut self, size: f64, place: Point, anchor: Anchor, paint: Paint, text: &str) {
        let (fill, anchor, text) = (paint.attribute(Use::Fill), anchor.name(), escaped(text));
        self.push(format_args!(
            "<text x=\"{:.2}\" y=\"{:.2}\" font-size=\"{size}\" text-anchor=\"{anchor}\" {fill}>{text}</text>",
            place.0, place.1
        ));
    }

    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.body, "{element}");
    }

    /// The file for browsers: light, or dark for who prefers it.
    pub(crate) fn svg(&self) -> String {
        let light = style(|(_, light, _)| light);
        let dark = style(|(_, _, dark)| dark);
        self.document(&format!(
            "{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}"
        ))
    }

    fn document(&self, style: &str) -> String {
        let Self {
            width,
            height,
            title,
            body,
        } = self;
        let title = escaped(title);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\" \
             font-family=\"Hack, 'DejaVu Sans Mono', Menlo, monospace\">\n\
             <style>\n{style}\n</style>\n\
             <rect width=\"{width}\" height=\"{height}\" class=\"f-page\"/>\n{body}</svg>\n"
        )
    }

    /// The same as an image, light.
    pub(crate) fn png(&self) -> Result<Vec<u8>, Failure> {
        self.raster(&style(|(_, light, _)| light))
            .map_err(|error| Failure::Trouble(format!("drawing the picture failed: {error}")))
    }

    fn raster(&self, style: &str) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
        let tree = parsed(&self.document(style))?;
        let size = tree
            .size()
            .to_int_size()
            .scale_by(PNG_SCALE)
            .ok_or("it has no size")?;
        let mut image = tiny_skia::Pixmap::new(size.width(), size.height()).ok_or("too large")?;
        let scale = tiny_skia::Transform::from_scale(PNG_SCALE, PNG_SCALE);
        resvg::render(&tree, scale, &mut image.as_mut());
        Ok(image.encode_png()?)
    }
}

/// The shapes of an SVG document, its text set in the font that is brought along.
fn parsed(document: &str) -> Result<usvg::Tree, usvg::Error> {
    let mut fonts = Database::new();
    fonts.load_font_data(epaint_default_fonts::HACK_REGULAR.to_vec());
    let options = usvg::Options {
        font_family: "Hack".into(),
        fontdb: std::sync::Arc::new(fonts),
        ..usvg::Options::default()
    };
    usvg::Tree::from_str(document, &options)
}

/// The classes with one of their two values.
fn style(value: impl Fn((&'static str, &'static str, &'static str)) -> &'static str) -> String {
    let rules = CLASSES.map(|class| {
        let (name, value) = (class.0, value(class));
        format!(".f-{name} {{ fill: {value} }} .l-{name} {{ stroke: {value} }}")
    });
    rules.join("\n")
}

/// As text between tags, or between quotes.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
pub(crate) mod tests;
