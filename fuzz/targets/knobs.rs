//! The knobs of the torture: a bad one is named, a good one is taken.
#![no_main]

use libfuzzer_sys::fuzz_target;
use smpcall_torture::torture::{Op, Torture};

fuzz_target!(|words: &str| {
    match Torture::default().with(words) {
        Ok(torture) => {
            let last = |name: &str| {
                let values = words
                    .split_ascii_whitespace()
                    .filter_map(|word| word.split_once('='));
                values.filter(|(word, _)| *word == name).last()
            };
            if let Some((_, value)) = last("seed") {
                assert_eq!(value.parse(), Ok(torture.seed));
            }
            let kick = torture.weights[Op::Kick as usize];
            let said = last("weight_kick").map(|(_, value)| value.parse());
            assert_eq!(kick.map(Ok), said);
        }
        Err(bad) => {
            let said = bad.to_string();
            assert!(words.contains(&format!("{}={}", bad.name, bad.value)));
            assert!(said.contains(bad.reason) && !said.contains('\n'));
        }
    }
});
