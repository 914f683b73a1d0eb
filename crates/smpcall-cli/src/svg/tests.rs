//! A picture is judged by what is really drawn: its text is set in the font, and measured.
//!
//! `SMPCALL_PICTURES=FOLDER cargo test -p smpcall-cli` keeps each picture that a test draws as two images,
//! `NAME-light.png` and `NAME-dark.png`, to be looked at.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use resvg::usvg::{Group, Node, Rect, Tree};

use super::*;

/// Fails if two texts overlap, or one leaves the page, crosses the edge of a shape or an upright
/// or level line, or has letters that the font lacks.
pub(crate) fn legible(picture: &Picture, what: &str) {
    let tree = parsed(&picture.svg()).expect("the picture is an SVG document");
    let mut texts = Vec::new();
    collect(tree.root(), &mut texts);
    let mut shapes = Vec::new();
    outlines(tree.root(), &mut shapes);
    for (text, letters) in &texts {
        // What a text lies on hides what was drawn before.
        let ground = shapes.iter().rposition(|shape| holds(shape, text));
        let above = &shapes[ground.map_or(0, |index| index + 1)..];
        let crossed = above.iter().find(|shape| overlap(text, shape));
        assert_eq!(crossed, None, "{what}: `{letters}` {text:?} is crossed");
    }
    keep(picture, what);
    assert!(!texts.is_empty(), "{what}: no text at all");
    let page = tree.size().to_rect(0.0, 0.0).expect("a page");
    for (index, (area, text)) in texts.iter().enumerate() {
        let inside = area.left() >= page.left()
            && area.right() <= page.right()
            && area.top() >= page.top()
            && area.bottom() <= page.bottom();
        assert!(
            inside,
            "{what}: `{text}` leaves the page: {area:?} of {page:?}"
        );
        for (other, other_text) in &texts[..index] {
            assert!(
                !overlap(area, other),
                "{what}: `{text}` {area:?} overlaps `{other_text}` {other:?}"
            );
        }
    }
}

/// Writes the picture as images, if somebody wants to see it.
fn keep(picture: &Picture, what: &str) {
    let Some(folder) = std::env::var_os("SMPCALL_PICTURES") else {
        return;
    };
    let name = what.replace(' ', "-");
    let grounds = [
        ("light", style(|(_, light, _)| light)),
        ("dark", style(|(_, _, dark)| dark)),
    ];
    for (ground, style) in grounds {
        let image = picture.raster(&style).expect("an image");
        let file = Path::new(&folder).join(format!("{name}-{ground}.png"));
        fs::write(&file, image).expect("the folder is there");
    }
}

/// Does a text lie wholly on a shape?
fn holds(shape: &Rect, text: &Rect) -> bool {
    shape.left() <= text.left()
        && shape.right() >= text.right()
        && shape.top() <= text.top()
        && shape.bottom() >= text.bottom()
}

/// Where the shapes are, in the order in which they are drawn; slanting lines are left out, for their area is not what they cover.
fn outlines(group: &Group, shapes: &mut Vec<Rect>) {
    for node in group.children() {
        match node {
            Node::Group(group) => outlines(group, shapes),
            Node::Path(path) => {
                let area = path.abs_bounding_box();
                let slants = path.fill().is_none() && area.width() > 0.0 && area.height() > 0.0;
                if !slants {
                    shapes.push(path.abs_stroke_bounding_box());
                }
            }
            _ => {}
        }
    }
}

fn overlap(one: &Rect, other: &Rect) -> bool {
    one.left() < other.right()
        && other.left() < one.right()
        && one.top() < other.bottom()
        && other.top() < one.bottom()
}

fn collect(group: &Group, texts: &mut Vec<(Rect, String)>) {
    for node in group.children() {
        match node {
            Node::Group(group) => collect(group, texts),
            Node::Text(text) => {
                let letters: String = text.chunks().iter().map(|chunk| chunk.text()).collect();
                let area = text.abs_bounding_box();
                assert!(
                    area.width() > 0.0,
                    "`{letters}` has no width: no font has its letters"
                );
                texts.push((area, letters));
            }
            _ => {}
        }
    }
}

fn page(text: &str) -> Picture {
    let mut picture = Picture::new(200.0, 100.0, "Title", "subtitle");
    picture.text((MARGIN, 90.0), Anchor::Start, Paint::Ink, text);
    picture
}

#[test]
fn a_text_is_as_wide_as_it_says() {
    let text = "0123456789 <wide> & \"quoted\"";
    let tree: Tree = parsed(&page(text).svg()).expect("special letters are escaped");
    let mut texts = Vec::new();
    collect(tree.root(), &mut texts);
    let (area, drawn) = texts.last().expect("the text");
    assert_eq!(drawn, text);
    let wide = f64::from(area.width());
    assert!(
        (wide - text_width(text)).abs() < 0.05 * wide,
        "{wide} {}",
        text_width(text)
    );
}

#[test]
fn a_page_is_wide_enough_for_its_title() {
    let picture = Picture::new(
        10.0,
        100.0,
        "A rather long title, you see",
        "and a longer line below it",
    );
    legible(&picture, "a narrow page");
}

#[test]
#[should_panic(expected = "overlaps")]
fn texts_that_overlap_are_noticed() {
    let mut picture = page("one");
    picture.text((MARGIN + 8.0, 92.0), Anchor::Start, Paint::Ink, "two");
    legible(&picture, "two in one place");
}

#[test]
#[should_panic(expected = "is crossed")]
fn a_line_through_a_text_is_noticed() {
    let mut picture = page("one");
    picture.line((MARGIN, 86.0), (MARGIN + 60.0, 86.0), Paint::Ink, 1.0);
    legible(&picture, "a struck text");
}

#[test]
#[should_panic(expected = "is crossed")]
fn a_text_that_sticks_out_of_its_shape_is_noticed() {
    let mut picture = page("longer than it");
    let area = Area {
        x: MARGIN - 2.0,
        y: 76.0,
        width: 30.0,
        height: 20.0,
    };
    picture.rect(area, Paint::Grid, "");
    legible(&picture, "a text too long");
}

#[test]
fn the_dark_image_is_light_on_dark() {
    let png = page("x")
        .raster(&style(|(_, _, dark)| dark))
        .expect("an image");
    let image = tiny_skia::Pixmap::decode_png(&png).expect("a PNG");
    assert!(image.pixel(0, 0).expect("a corner").red() < 40);
    assert!(
        image.pixels().iter().any(|pixel| pixel.red() > 200),
        "the text is light"
    );
}

#[test]
fn every_class_has_a_value_on_light_and_on_dark() {
    let svg = page("x").svg();
    assert_eq!(svg.matches(".f-ink {").count(), 2);
    assert!(svg.contains("prefers-color-scheme: dark"));
}

#[test]
fn text_stands_out_from_every_shade() {
    let light = |paint| match paint {
        Paint::Colour(r, g, b) => {
            0.299 * f64::from(r) + 0.587 * f64::from(g) + 0.114 * f64::from(b)
        }
        _ => panic!("a shade is a colour"),
    };
    for step in 0..=100 {
        let shade = Paint::heat(f64::from(step) / 100.0);
        assert!(
            (light(shade) - light(shade.on())).abs() > 90.0,
            "step {step}"
        );
    }
}

/// The contrast of two colours as the Web's accessibility guidelines define it.
fn contrast(one: &str, other: &str) -> f64 {
    let light = |colour: &str| {
        let part = |at: usize| {
            let hex = &colour[1 + 2 * at..3 + 2 * at];
            let value = f64::from(u8::from_str_radix(hex, 16).expect("a colour")) / 255.0;
            if value <= 0.03928 {
                value / 12.92
            } else {
                ((value + 0.055) / 1.055).powf(2.4)
            }
        };
        0.2126 * part(0) + 0.7152 * part(1) + 0.0722 * part(2)
    };
    let (one, other) = (light(one) + 0.05, light(other) + 0.05);
    one.max(other) / one.min(other)
}

#[test]
fn every_paint_stands_out_from_its_page_on_light_and_on_dark() {
    let (_, light, dark) = CLASSES[0];
    for (name, on_light, on_dark) in &CLASSES[1..] {
        let needed = match *name {
            "grid" => 1.1,
            "ink" | "faint" => 4.5,
            _ => 3.0,
        };
        for (page, paint) in [(light, on_light), (dark, on_dark)] {
            let found = contrast(page, paint);
            assert!(found >= needed, "{name}: {paint} on {page} has {found:.1}");
        }
    }
}

#[test]
fn the_image_is_twice_as_large_and_light() {
    let png = page("x").png().expect("a picture");
    let image = tiny_skia::Pixmap::decode_png(&png).expect("a PNG");
    let wide = page("x").width as u32 * 2;
    assert_eq!((image.width(), image.height()), (wide, 200));
    let corner = image.pixel(0, 0).expect("a corner");
    assert_eq!(
        (corner.red(), corner.green(), corner.blue()),
        (255, 255, 255)
    );
    assert!(
        image.pixels().iter().any(|pixel| pixel.red() < 100),
        "the text is dark"
    );
}

#[test]
fn a_file_that_cannot_be_written_is_refused_before_the_work() {
    let options = Pictures {
        svg: Some("/nonexistent/folder/x.svg".into()),
        png: None,
    };
    assert!(matches!(options.check(), Err(Failure::Usage(text)) if text.contains("--svg")));
}
