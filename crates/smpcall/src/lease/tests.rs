//! Loom models of the request for a line: E46.
#![expect(clippy::missing_panics_doc, reason = "a test panics to fail")]

use std::sync::Arc;

use loom::thread;

use crate::cpu::CpuId;
use crate::testing::{become_cpu, largest_model, small};

#[test]
fn e46_the_request_for_a_line_is_used_again_only_when_its_owner_is_through_with_it() {
    largest_model(|| {
        let smp = Arc::new(small(&[0, 1, 2]));
        let (owner, target) = (CpuId::new(1), CpuId::new(0));
        let asker = |id: u32| {
            let smp = smp.clone();
            thread::spawn(move || {
                become_cpu(id);
                smp.ask_for_line(owner, smp.own(owner), target);
            })
        };
        let first = asker(0);
        let second = asker(2);
        become_cpu(1);
        smp.handle_ipi();
        smp.handle_ipi();
        first.join().unwrap();
        second.join().unwrap();
        smp.handle_ipi();
        assert!(
            smp.own(owner).queues.posted.looks_empty(),
            "all requests ran"
        );
    });
}

#[test]
fn a_line_that_is_asked_for_is_let_go_and_one_in_use_is_not() {
    loom::model(|| {
        let smp = small(&[0, 1]);
        let (owner, target) = (become_cpu(1), CpuId::new(0));
        let mailbox = &smp.own(target).mail[1];
        assert!(smp.begin_mail(owner, target, mailbox));
        smp.ask_for_line(owner, smp.own(owner), target);
        smp.handle_ipi();
        assert!(mailbox.is_owned_by(1), "it is in use");
        smp.own(owner).local.set_mailing(0);
        smp.ask_for_line(owner, smp.own(owner), target);
        smp.handle_ipi();
        assert_eq!(mailbox.owner(), None);
    });
}
