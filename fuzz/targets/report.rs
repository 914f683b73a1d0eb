//! The lines of the report that a kernel says: what is read is what was said, and only the closing line ends it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use smpcall_torture::report::Line;

fuzz_target!(|line: &str| {
    let said = format!("smpcall: {line}");
    for line in [line, &said] {
        let Some(read) = Line::parse(line) else {
            continue;
        };
        let again = read.to_string();
        assert_eq!(Line::parse(&again), Some(read), "{again:?}");
        let ends = read == Line::End(true);
        assert_eq!(ends, line.trim_end() == "smpcall: end ok");
    }
});
