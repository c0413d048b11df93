use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::codes::Refusal;
use crate::ids::{AgentId, Epoch, Millis, Seq};
use crate::wire::{Body, LifeReceipt, RangeSum, Receipt, StoreId, entry_hash};

const AGENT: AgentId = AgentId([1; 6]);
const LIFE: Epoch = Epoch { counter: 1, random: 11 };
const STORE: StoreId = StoreId { ledger: [1; 8], incarnation: 1 };

fn hash(seq: Seq) -> u64 {
    entry_hash(AGENT, LIFE, seq, 1, &Body::Begins { earlier: vec![], lost: vec![] })
}

fn item(seq: Seq) -> Item {
    Item { hash: hash(seq), context: 1, bytes: 40, confirmed: false, void: false }
}

fn outbox(entries: Seq) -> Outbox {
    let mut outbox = Outbox::new(AGENT, LIFE, None, Config::default());
    for seq in 1..=entries {
        outbox.add(LIFE, seq, item(seq));
    }
    outbox
}

fn receipt(ranges: &[(Seq, Seq)], complete: bool, answers: Option<u64>) -> Receipt {
    let sum = |a: Seq, b: Seq| (a..=b).fold(0u64, |s, seq| s.wrapping_add(hash(seq)));
    let ranges =
        ranges.iter().map(|&(first, last)| RangeSum { first, last, sum: sum(first, last) });
    Receipt {
        store: STORE,
        position: 1,
        lives: vec![LifeReceipt {
            epoch: Some(LIFE),
            ranges: ranges.collect(),
            ..LifeReceipt::default()
        }],
        complete,
        answers,
        time: Millis(0),
        credit: 4,
    }
}

fn hello(effects: &[Effect]) -> &Cut {
    match &effects[0] {
        Effect::Send(cut) if cut.hello.is_some() => cut,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_hello_carries_the_newest_and_an_answer_releases_what_it_proves() {
    let mut outbox = outbox(100);
    let effects = outbox.handle(Millis(0), Event::Connected { nonce: 5 });
    assert_eq!(hello(&effects).seqs, {
        let mut newest: Vec<Seq> = (42..=100).collect();
        newest.insert(0, 1);
        newest
    });
    assert_eq!(effects.len(), 1, "nothing else is on its way before the answer");
    let effects =
        outbox.handle(Millis(1), Event::Receipt(&receipt(&[(1, 1), (42, 100)], true, Some(5))));
    assert_eq!(effects[0], Effect::Store(STORE));
    assert_eq!(effects[1], Effect::Confirm { epoch: LIFE, ranges: vec![(1, 1), (42, 100)] });
    assert!(
        effects
            .iter()
            .any(|e| matches!(e, Effect::Send(cut) if cut.seqs == (2..=41).collect::<Vec<_>>()))
    );
    outbox.handle(Millis(2), Event::Receipt(&receipt(&[(2, 41)], false, Some(5))));
    assert!(outbox.is_settled());
}

#[test]
fn strangers_stale_and_lowering_receipts_release_nothing() {
    let mut outbox = outbox(3);
    outbox.handle(Millis(0), Event::Connected { nonce: 5 });
    assert!(
        outbox.handle(Millis(1), Event::Receipt(&receipt(&[(1, 3)], true, Some(4)))).is_empty(),
        "another hello"
    );
    assert!(
        outbox.handle(Millis(1), Event::Receipt(&receipt(&[(1, 3)], false, None))).is_empty(),
        "unknown store"
    );
    outbox.handle(Millis(1), Event::Receipt(&receipt(&[(1, 2)], true, Some(5))));
    assert_eq!(outbox.waiting(), 1);
    let lower = outbox.handle(Millis(2), Event::Receipt(&receipt(&[], true, Some(5))));
    assert!(
        !lower.iter().any(|e| matches!(e, Effect::Unconfirm { .. })),
        "only the first answer may show less"
    );
    assert_eq!(outbox.waiting(), 1);
}

#[test]
fn a_restored_store_gets_everything_again() {
    let mut outbox = outbox(0);
    for seq in 1..=3 {
        outbox.add(LIFE, seq, Item { confirmed: true, ..item(seq) });
    }
    outbox.handle(Millis(0), Event::Connected { nonce: 5 });
    let effects = outbox.handle(Millis(1), Event::Receipt(&receipt(&[(1, 1)], true, Some(5))));
    assert!(effects.contains(&Effect::Unconfirm { epoch: LIFE, ranges: vec![(2, 3)] }));
    assert!(effects.iter().any(|e| matches!(e, Effect::Send(cut) if cut.seqs == [2, 3])));
}

#[test]
fn sums_that_differ_or_numbers_never_issued_mean_a_twin() {
    for shown in [vec![(1, 4)], vec![(1, 3)]] {
        let mut outbox = outbox(3);
        outbox.handle(Millis(0), Event::Connected { nonce: 5 });
        let mut receipt = receipt(&shown, true, Some(5));
        receipt.lives[0].ranges[0].sum ^= 1;
        let effects = outbox.handle(Millis(1), Event::Receipt(&receipt));
        assert!(effects.contains(&Effect::NewLife));
        assert_eq!(outbox.waiting(), 3, "nothing was released");
        let next = Epoch { counter: 2, random: 1 };
        outbox.begin(next, item(1));
        let effects = outbox.handle(Millis(2), Event::Tick);
        assert!(matches!(&effects[0], Effect::Send(cut) if cut.epoch == next));
    }
}

#[test]
fn a_refused_entry_is_voided_and_its_number_settled() {
    let mut outbox = outbox(2);
    outbox.handle(Millis(0), Event::Connected { nonce: 5 });
    let mut answer = receipt(&[(1, 1)], true, Some(5));
    answer.lives[0].refused.push((2, Refusal::NotInScope));
    let effects = outbox.handle(Millis(1), Event::Receipt(&answer));
    assert!(effects.contains(&Effect::Refused {
        epoch: LIFE,
        seq: 2,
        refusal: Refusal::NotInScope
    }));
    let void = entry_hash(AGENT, LIFE, 2, 1, &Body::Void);
    let mut done = receipt(&[(2, 2)], false, Some(5));
    done.lives[0].ranges[0].sum = void;
    outbox.handle(Millis(2), Event::Receipt(&done));
    assert!(outbox.is_settled());
}

#[test]
fn a_receipt_that_never_comes_is_asked_for_again_with_the_same_cut() {
    let mut outbox = outbox(2);
    let effects = outbox.handle(Millis(0), Event::Connected { nonce: 5 });
    assert!(outbox.handle(Millis(19_999), Event::Tick).is_empty());
    assert_eq!(outbox.wake_at(), Some(Millis(20_000)));
    assert_eq!(outbox.handle(Millis(20_000), Event::Tick), effects);
}

proptest! {
    // The runs of the inbox say the same as a plain map, whatever is held and forgotten in whatever order.
    #[test]
    fn inbox_equals_a_plain_map(steps in prop::collection::vec((1u64..40, any::<bool>()), 0..200)) {
        let mut inbox = Inbox::default();
        let mut model = BTreeMap::new();
        for (seq, hold) in steps {
            if hold {
                inbox.hold(LIFE, seq, hash(seq));
                model.insert(seq, hash(seq));
            } else {
                inbox.forget(LIFE, seq);
                model.remove(&seq);
            }
            prop_assert_eq!(inbox.counts().0, model.len() as u64);
            for seq in 0..42 {
                prop_assert_eq!(inbox.hash(LIFE, seq), model.get(&seq).copied());
            }
            let (all, complete) = inbox.all();
            prop_assert!(complete);
            let ranges: Vec<_> = all.iter().flat_map(|l| l.ranges.clone()).collect();
            prop_assert!(ranges.windows(2).all(|w| w[0].last + 1 < w[1].first), "runs are merged");
            for range in ranges {
                let sum = model.range(range.first..=range.last).fold(0u64, |s, (_, h)| s.wrapping_add(*h));
                prop_assert_eq!(sum, range.sum);
            }
        }
    }
}
