//! CPU sets: word boundaries, the list form both ways, widths from 1 to 64 words; and E16 in loom.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

#[cfg(not(loom))]
mod unit {
    use crate::cpu::{AtomicCpuMask, CpuId, CpuMask, ListFault, decimal};

    fn cpu(id: u32) -> CpuId {
        CpuId::new(id)
    }

    fn mask<const W: usize>(ids: &[u32]) -> CpuMask<W> {
        ids.iter().map(|&id| cpu(id)).collect()
    }

    fn ids<const W: usize>(mask: &CpuMask<W>) -> Vec<u32> {
        mask.iter().map(CpuId::get).collect()
    }

    #[test]
    fn cpus_at_word_boundaries_are_kept_apart() {
        let mut set = CpuMask::<2>::new();
        for id in [63, 64, 65, 127] {
            assert!(set.insert(cpu(id)), "{id} is new");
            assert!(!set.insert(cpu(id)), "{id} is there");
        }
        assert_eq!(ids(&set), [63, 64, 65, 127]);
        assert_eq!(*set.words(), [1 << 63, 1 << 63 | 0b11]);
        assert_eq!(set.len(), 4);
        assert!(set.contains(cpu(64)) && !set.contains(cpu(62)) && !set.contains(cpu(66)));
        assert!(set.remove(cpu(64)) && !set.remove(cpu(64)));
        assert_eq!((set.first(), set.last()), (Some(cpu(63)), Some(cpu(127))));
        assert_eq!(CpuMask::from_words(*set.words()), set);
    }

    #[test]
    fn a_cpu_beyond_the_capacity_is_in_no_mask() {
        let mut set = CpuMask::<1>::new();
        for id in [64, 65, 4096, u32::MAX] {
            assert!(!set.insert(cpu(id)) && !set.remove(cpu(id)) && !set.contains(cpu(id)));
        }
        assert!(set.is_empty());
        assert_eq!((set.len(), set.first(), set.last()), (0, None, None));
        assert!(CpuMask::<1>::of(cpu(64)).is_empty());
        assert_eq!(CpuMask::<1>::CAPACITY, 64);
    }

    #[test]
    fn first_n_stops_at_each_boundary_and_at_the_capacity() {
        for n in [0, 1, 63, 64, 65, 127, 128] {
            let set = CpuMask::<2>::first_n(n);
            assert_eq!(ids(&set), (0..n as u32).collect::<Vec<_>>());
        }
        assert_eq!(CpuMask::<2>::first_n(129).len(), 128);
        assert_eq!(CpuMask::<64>::first_n(usize::MAX).len(), 4096);
    }

    #[test]
    fn the_widest_mask_names_4096_cpus() {
        let set = mask::<64>(&[0, 63, 64, 2047, 4095, 4096]);
        assert_eq!(ids(&set), [0, 63, 64, 2047, 4095]);
        assert_eq!(set.last(), Some(cpu(4095)));
        assert_eq!(set.to_string(), "0,63-64,2047,4095");
        assert_eq!(CpuMask::<64>::parse_list("0,63-64,2047,4095"), Ok(set));
        let all = CpuMask::<64>::first_n(4096);
        assert_eq!((all.len(), all.to_string()), (4096, "0-4095".into()));
    }

    #[test]
    fn set_operations_work_by_word() {
        let (a, b) = (mask::<2>(&[1, 63, 64]), mask::<2>(&[63, 65]));
        assert_eq!(ids(&a.and(&b)), [63]);
        assert_eq!(ids(&a.or(&b)), [1, 63, 64, 65]);
        assert_eq!(ids(&a.and_not(&b)), [1, 64]);
        assert_eq!(CpuMask::<2>::default(), CpuMask::EMPTY);
        assert_eq!((&a).into_iter().count(), 3);
    }

    #[test]
    fn lists_print_ranges_and_parse_back() {
        let lists = [
            "",
            "0",
            "63",
            "0-1",
            "0-3,8",
            "62-65",
            "0,2,4",
            "1-127",
            "0-63,65-127",
        ];
        for list in lists {
            let set = CpuMask::<2>::parse_list(list).unwrap();
            assert_eq!(set.to_string(), list);
        }
        assert_eq!(format!("{:?}", mask::<1>(&[0, 1])), "CpuMask(0-1)");
    }

    #[test]
    fn lists_may_overlap_repeat_and_stand_in_blanks() {
        let set = CpuMask::<1>::parse_list(" 3,1-2,2,0-1 \n").unwrap();
        assert_eq!(set.to_string(), "0-3");
        assert_eq!("5-5".parse::<CpuMask<1>>().unwrap().to_string(), "5");
    }

    #[test]
    fn a_malformed_list_names_the_part_at_fault() {
        let faults = [
            (",", "", ListFault::NotANumber),
            ("1,", "", ListFault::NotANumber),
            ("1,,2", "", ListFault::NotANumber),
            ("1, 2", " 2", ListFault::NotANumber),
            ("0,abc", "abc", ListFault::NotANumber),
            ("1-", "1-", ListFault::NotANumber),
            ("-1", "-1", ListFault::NotANumber),
            ("1-2-3", "1-2-3", ListFault::NotANumber),
            ("0x1", "0x1", ListFault::NotANumber),
            ("+1", "+1", ListFault::NotANumber),
            (
                "99999999999999999999",
                "99999999999999999999",
                ListFault::NotANumber,
            ),
            ("0,3-2", "3-2", ListFault::FallingRange),
            ("64", "64", ListFault::BeyondCapacity { capacity: 64 }),
            ("60-64", "60-64", ListFault::BeyondCapacity { capacity: 64 }),
            (
                "0-18446744073709551615",
                "0-18446744073709551615",
                ListFault::BeyondCapacity { capacity: 64 },
            ),
        ];
        for (list, part, reason) in faults {
            let error = CpuMask::<1>::parse_list(list).unwrap_err();
            assert_eq!((error.part, error.reason), (part, reason), "{list:?}");
            assert_eq!(list.parse::<CpuMask<1>>(), Err(reason));
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("bad CPU list part `{part}`: "))
            );
        }
    }

    #[test]
    fn a_decimal_is_digits_and_fits() {
        assert_eq!(decimal("0"), Some(0));
        assert_eq!(decimal("18446744073709551615"), Some(u64::MAX));
        for token in [
            "",
            "18446744073709551616",
            "-1",
            "+1",
            " 1",
            "1 ",
            "a",
            "\u{661}",
        ] {
            assert_eq!(decimal(token), None, "{token:?}");
        }
    }

    #[test]
    fn a_shared_mask_answers_as_a_plain_one() {
        let shared = AtomicCpuMask::<2>::new();
        for id in [63, 64, 127] {
            shared.insert(cpu(id));
        }
        assert!(shared.contains(cpu(64)) && !shared.contains(cpu(65)));
        assert!(!shared.contains(cpu(128)) && !shared.contains(cpu(u32::MAX)));
        shared.remove(cpu(64));
        assert_eq!(ids(&shared.load()), [63, 127]);
        shared.store(&mask(&[0]));
        assert_eq!(ids(&shared.load()), [0]);
    }

    #[test]
    fn ids_print_as_numbers() {
        assert_eq!(
            (cpu(7).to_string(), format!("{:?}", cpu(7))),
            ("7".into(), "CPU7".into())
        );
        assert_eq!((cpu(7).get(), cpu(7).index()), (7, 7));
    }
}

#[cfg(loom)]
mod model {
    use std::sync::Arc;

    use loom::thread;

    use crate::cpu::{AtomicCpuMask, CpuId};
    use crate::testing::{Plain, model};

    #[test]
    fn e16_a_cpu_in_the_mask_has_an_open_area() {
        for by_copy in [false, true] {
            model(move || {
                let world = Arc::new((AtomicCpuMask::<1>::new(), Plain::new()));
                let (low, high) = (CpuId::new(0), CpuId::new(63));
                world.0.insert(low);
                let comer = thread::spawn({
                    let world = world.clone();
                    move || {
                        world.1.set(1);
                        world.0.insert(high);
                    }
                });
                // Another CPU's change to the same word must not cut the edge off.
                world.0.remove(low);
                let seen = if by_copy {
                    world.0.load().contains(high)
                } else {
                    world.0.contains(high)
                };
                if seen {
                    assert_eq!(world.1.get(), 1);
                }
                comer.join().unwrap();
            });
        }
    }
}
