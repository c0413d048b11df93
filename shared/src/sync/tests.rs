use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::codes::{ParkReason, Refusal};
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
    assert_eq!(effects[0], Effect::Confirm { epoch: LIFE, ranges: vec![(1, 1), (42, 100)] });
    assert!(effects.contains(&Effect::Store(STORE)));
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
        assert!(effects.contains(&Effect::NewLife { known: 0, twin: true }));
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

fn void(seq: Seq) -> u64 {
    entry_hash(AGENT, LIFE, seq, 1, &Body::Void)
}

#[test]
fn a_hello_whose_entry_was_voided_goes_out_again_without_it() {
    let mut outbox = Outbox::new(AGENT, LIFE, Some(STORE), Config::default());
    (1..=2).for_each(|seq| outbox.add(LIFE, seq, item(seq)));
    outbox.handle(Millis(0), Event::Connected { nonce: 5 });
    let mut early = receipt(&[], false, None);
    early.lives[0].refused.push((2, Refusal::NotInScope));
    let effects = outbox.handle(Millis(1), Event::Receipt(&early));
    assert!(
        effects.iter().any(|e| matches!(e, Effect::Send(c) if c.hello == Some(5) && c.seqs == [1]))
    );
    let again = outbox.handle(Millis(30_000), Event::Tick);
    assert_eq!(again.len(), 1, "the hello is repeated until it is answered: {again:?}");
}

#[test]
fn a_twin_seen_before_the_answer_leaves_the_hello_under_way() {
    let mut outbox = Outbox::new(AGENT, LIFE, Some(STORE), Config::default());
    outbox.add(LIFE, 1, item(1));
    outbox.handle(Millis(0), Event::Connected { nonce: 5 });
    let effects = outbox.handle(Millis(1), Event::Receipt(&receipt(&[(1, 2)], false, None)));
    assert!(effects.contains(&Effect::NewLife { known: 0, twin: true }));
    outbox.begin(Epoch { counter: 2, random: 1 }, item(1));
    let again = outbox.handle(Millis(30_000), Event::Tick);
    assert!(matches!(&again[..], [Effect::Send(cut)] if cut.hello == Some(5)));
}

#[test]
fn a_refusal_is_believed_only_of_what_is_under_way() {
    let mut outbox =
        Outbox::new(AGENT, LIFE, Some(STORE), Config { batch_entries: 1, ..Config::default() });
    (1..=3).for_each(|seq| outbox.add(LIFE, seq, item(seq)));
    outbox.handle(Millis(0), Event::Connected { nonce: 5 });
    let mut old = receipt(&[], false, None);
    old.lives[0].refused.push((3, Refusal::NotInScope));
    let effects = outbox.handle(Millis(1), Event::Receipt(&old));
    assert!(!effects.iter().any(|e| matches!(e, Effect::Refused { .. })), "{effects:?}");
}

#[test]
fn a_store_seen_for_the_first_time_is_believed_only_by_its_sums() {
    // Confirmed by the store as it was; restored since, and a twin has used number 3.
    let mut outbox =
        Outbox::new(AGENT, LIFE, Some(StoreId { incarnation: 0, ..STORE }), Config::default());
    (1..=3).for_each(|seq| outbox.add(LIFE, seq, Item { confirmed: true, ..item(seq) }));
    outbox.handle(Millis(0), Event::Connected { nonce: 5 });
    let mut answer = receipt(&[(1, 3)], true, Some(5));
    answer.lives[0].ranges[0].sum ^= 1;
    let effects = outbox.handle(Millis(1), Event::Receipt(&answer));
    assert_eq!(effects[0], Effect::Unconfirm { epoch: LIFE, ranges: vec![(1, 3)] });
    assert!(effects.contains(&Effect::NewLife { known: 0, twin: true }));
    assert_eq!(effects.last(), Some(&Effect::Store(STORE)));
}

#[test]
fn a_life_whose_first_entry_is_lost_to_both_ends_moves() {
    let old = Epoch { counter: 2, random: 1 };
    for held in [false, true] {
        let mut outbox =
            Outbox::new(AGENT, Epoch { counter: 3, random: 1 }, Some(STORE), Config::default());
        outbox.add(old, 4, item(4));
        outbox.handle(Millis(0), Event::Connected { nonce: 5 });
        let mut answer = receipt(if held { &[(1, 1)] } else { &[] }, true, Some(5));
        answer.lives[0].epoch = Some(old);
        let effects = outbox.handle(Millis(1), Event::Receipt(&answer));
        assert_eq!(
            effects.contains(&Effect::Renumber { epoch: old, seq: 4 }),
            !held,
            "{effects:?}"
        );
    }
}

#[test]
fn history_dropped_in_front_still_counts_in_the_sums() {
    let mut outbox = Outbox::new(AGENT, LIFE, Some(STORE), Config::default());
    outbox.load_life(LIFE, 3, (1..=3).fold(0u64, |s, q| s.wrapping_add(hash(q))), 5);
    for seq in [1, 4, 5] {
        outbox.add(LIFE, seq, item(seq));
    }
    outbox.handle(Millis(0), Event::Connected { nonce: 5 });
    let effects = outbox.handle(Millis(1), Event::Receipt(&receipt(&[(1, 1)], true, Some(5))));
    assert!(effects.contains(&Effect::Confirm { epoch: LIFE, ranges: vec![(1, 1)] }));
    outbox.handle(Millis(2), Event::Receipt(&receipt(&[(1, 5)], false, None)));
    assert!(outbox.is_settled());
}

#[test]
fn an_answer_too_long_for_one_receipt_still_answers() {
    let mut outbox = outbox(2);
    outbox.add(LIFE, 1, Item { confirmed: true, ..item(1) });
    outbox.handle(Millis(0), Event::Connected { nonce: 5 });
    let effects = outbox.handle(Millis(1), Event::Receipt(&receipt(&[(2, 2)], false, Some(5))));
    assert!(!effects.iter().any(|e| matches!(e, Effect::Unconfirm { .. })), "it may not show less");
    assert!(outbox.is_settled());
}

#[test]
fn a_number_refused_before_is_judged_anew_with_other_content() {
    let mut inbox = Inbox::default();
    inbox.refuse(LIFE, 1, hash(1), Refusal::NotInScope);
    assert_eq!(inbox.fate(LIFE, 1, hash(1), false), Fate::StillRefused(Refusal::NotInScope));
    assert_eq!(inbox.fate(LIFE, 1, hash(2), false), Fate::New);
    inbox.hold(LIFE, 1, hash(1));
    assert_eq!(inbox.counts(), (0, 1, 0), "what was refused stays refused");
    inbox.hold(LIFE, 1, void(1));
    assert_eq!(inbox.counts(), (1, 0, 0));
    assert_eq!(
        inbox.fate(LIFE, 1, hash(1), false),
        Fate::StillRefused(Refusal::NotInScope),
        "a late copy of the refused entry is no twin's"
    );
    let told = inbox.of(LIFE, &[(1, hash(1))]);
    assert_eq!((told.ranges, told.refused), (vec![], vec![(1, Refusal::NotInScope)]));
    let told = inbox.of(LIFE, &[(1, void(1))]);
    assert_eq!((told.ranges.len(), told.refused), (1, vec![]));
    assert_eq!(inbox.fate(LIFE, 1, 777, false), Fate::Reused);
    // The void's commit fails: the refusal is as it was.
    inbox.forget(LIFE, 1);
    assert_eq!(inbox.fate(LIFE, 1, hash(1), false), Fate::StillRefused(Refusal::NotInScope));
    inbox.forget(LIFE, 1);
    inbox.park(LIFE, 1, None);
    assert_eq!(inbox, Inbox::default(), "nothing is left of a life nothing is held of");
}

#[test]
fn the_owner_of_a_number_is_proven_by_the_receipt_its_twin_got() {
    let mut inbox = Inbox::default();
    inbox.hold(LIFE, 1, hash(1));
    inbox.hold(LIFE, 2, 777);
    let shown = inbox.of(LIFE, &[(1, 888), (2, 777)]);
    let mut outbox =
        Outbox::new(AGENT, Epoch { counter: 2, random: 1 }, Some(STORE), Config::default());
    outbox.add(LIFE, 1, item(1));
    outbox.add(LIFE, 2, item(2));
    outbox.handle(Millis(0), Event::Connected { nonce: 5 });
    outbox.handle(
        Millis(1),
        Event::Receipt(&Receipt { lives: vec![], ..receipt(&[], true, Some(5)) }),
    );
    let word = Receipt { lives: vec![shown], ..receipt(&[], false, None) };
    let effects = outbox.handle(Millis(2), Event::Receipt(&word));
    assert!(
        effects.contains(&Effect::Confirm { epoch: LIFE, ranges: vec![(1, 1)] }),
        "{effects:?}"
    );
    assert!(!effects.iter().any(|e| matches!(e, Effect::Renumber { .. })));
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

/// All parts of a bundle: its batches, the hello first.
fn exported(outbox: &mut Outbox, nonce: u64, bytes_max: usize) -> Vec<Cut> {
    let (mut cuts, mut after) = (Vec::new(), None);
    loop {
        let part = outbox.export(nonce, after, bytes_max);
        cuts.extend(part.cuts);
        after = part.next;
        if after.is_none() {
            return cuts;
        }
    }
}

#[test]
fn a_bundle_is_a_hello_and_all_that_waits_in_parts_of_any_size() {
    for bytes_max in [1, 40, 100, 1 << 20] {
        let mut outbox = outbox(900);
        outbox.handle(Millis(0), Event::Connected { nonce: 1 });
        outbox.handle(Millis(0), Event::Receipt(&receipt(&[(1, 300), (500, 500)], true, Some(1))));
        let cuts = exported(&mut outbox, 7, bytes_max);
        assert_eq!((cuts[0].hello, cuts[0].seqs.len()), (Some(7), 0));
        assert!(cuts[1..].iter().all(|cut| cut.hello.is_none() && !cut.seqs.is_empty()));
        let mut seqs: Vec<Seq> = cuts.iter().flat_map(|cut| cut.seqs.iter().copied()).collect();
        assert_eq!(*seqs.iter().max().unwrap(), *cuts[1].seqs.last().unwrap(), "newest first");
        seqs.sort_unstable();
        let waits: Vec<Seq> = (301..=900).filter(|seq| *seq != 500).collect();
        assert_eq!(seqs, waits, "each once, in parts of {bytes_max}");
        let carried = outbox.carried();
        assert_eq!(carried.len(), 1);
        assert_eq!(carried[0].runs, [(LIFE, 501, 900), (LIFE, 301, 499)], "in {bytes_max}");
        assert_eq!(outbox.waiting(), 599, "nothing is delivered by being written");
    }
    // Number 1 of a later life goes first, and what the centre would not take is left out.
    let life = Epoch { counter: 2, random: 5 };
    let mut outbox = Outbox::new(AGENT, life, None, Config::default());
    for seq in 1..=4 {
        outbox.add(life, seq, Item { context: u32::from(seq < 3), ..item(seq) });
    }
    outbox.add(LIFE, 1, item(1));
    let cuts = exported(&mut outbox, 7, 1);
    let order = cuts[1..].iter().flat_map(|cut| cut.seqs.iter().map(|s| (cut.epoch, *s)));
    assert_eq!(order.collect::<Vec<_>>(), [(life, 1), (life, 4), (life, 3), (life, 2), (LIFE, 1)]);
    let cuts = exported(&mut outbox, 8, 1 << 20);
    let seqs: Vec<_> = cuts[1..].iter().map(|cut| (cut.context, cut.seqs.clone())).collect();
    assert_eq!(seqs, [(1, vec![1]), (0, vec![3, 4]), (1, vec![2]), (1, vec![1])]);
}

#[test]
fn an_answer_that_is_brought_is_believed_once_and_not_after_newer_words() {
    let mut outbox = outbox(10);
    exported(&mut outbox, 1, 1 << 20);
    exported(&mut outbox, 2, 1 << 20);
    exported(&mut outbox, 3, 1 << 20);
    // Under a store not known yet only the answer to a bundle can prove anything.
    assert_eq!(outbox.handle(Millis(0), Event::Brought(&receipt(&[(1, 2)], false, None))), []);
    let effects = outbox.handle(Millis(0), Event::Brought(&receipt(&[(1, 5)], true, Some(1))));
    assert_eq!(effects[0], Effect::Confirm { epoch: LIFE, ranges: vec![(1, 5)] });
    assert!(effects.contains(&Effect::Store(STORE)));
    assert!(matches!(effects.last(), Some(Effect::Carried(_))), "it is remembered last");
    assert!(!outbox.is_answered(), "a line says hello for itself");
    // The third is answered before the second: what that one says later can only add.
    outbox.handle(Millis(0), Event::Brought(&receipt(&[(1, 7)], true, Some(3))));
    let effects = outbox.handle(Millis(0), Event::Brought(&receipt(&[(8, 8)], true, Some(2))));
    assert_eq!(effects, [Effect::Confirm { epoch: LIFE, ranges: vec![(8, 8)] }]);
    // A restored centre's answer shows less: what it does not show waits again. Once more it can only add.
    exported(&mut outbox, 4, 1 << 20);
    let restored =
        Receipt { store: StoreId { incarnation: 2, ..STORE }, ..receipt(&[(1, 3)], true, Some(4)) };
    let effects = outbox.handle(Millis(0), Event::Brought(&restored));
    assert!(
        effects.contains(&Effect::Unconfirm { epoch: LIFE, ranges: vec![(4, 8)] }),
        "{effects:?}"
    );
    let again = Receipt { lives: vec![], ..restored.clone() };
    assert_eq!(outbox.handle(Millis(0), Event::Brought(&again)), []);
    assert_eq!(outbox.waiting(), 7);
    // A hello over the line is answered: bundles written before it are older than that.
    exported(&mut outbox, 5, 1 << 20);
    outbox.handle(Millis(0), Event::Connected { nonce: 50 });
    let answer = Receipt { answers: Some(50), ..restored.clone() };
    let effects = outbox.handle(Millis(0), Event::Receipt(&answer));
    assert!(matches!(&effects[0], Effect::Carried(all) if all.iter().all(|one| one.answered)));
    let older = receipt(&[(1, 10)], true, Some(5));
    assert_eq!(outbox.handle(Millis(0), Event::Brought(&older)), [], "another store's word by now");
    assert_eq!(outbox.waiting(), 7);
    // More bundles than are remembered: the oldest answers only add.
    for nonce in 100..120 {
        exported(&mut outbox, nonce, 1 << 20);
    }
    assert_eq!(outbox.carried().len(), CARRIED_MAX);
    assert!(!outbox.awaits(Some(111)) && outbox.awaits(Some(112)) && !outbox.awaits(None));
}

#[test]
fn a_refusal_that_is_brought_is_believed_of_what_a_bundle_holds_only() {
    let mut outbox = outbox(4);
    exported(&mut outbox, 1, 1 << 20);
    outbox.add(LIFE, 5, item(5));
    let mut answer = receipt(&[(1, 3)], true, Some(1));
    answer.lives[0].refused = vec![(4, Refusal::NotInScope), (5, Refusal::NotInScope)];
    let effects = outbox.handle(Millis(0), Event::Brought(&answer));
    let refused: Vec<_> =
        effects.iter().filter(|effect| matches!(effect, Effect::Refused { .. })).collect();
    assert_eq!(refused.len(), 1);
    assert!(matches!(refused[0], Effect::Refused { seq: 4, .. }), "5 was in no bundle");
}

#[test]
fn what_a_line_says_outdates_bundles_and_old_answers_park_nothing_again() {
    let mut outbox = outbox(10);
    let parked =
        |answer: &mut Receipt| answer.lives[0].parked = vec![(3, ParkReason::FuturePeriod)];
    outbox.handle(Millis(0), Event::Connected { nonce: 1 });
    outbox.handle(Millis(0), Event::Receipt(&receipt(&[(1, 10)], true, Some(1))));
    outbox.add(LIFE, 11, item(11));
    exported(&mut outbox, 7, 1 << 20);
    outbox.add(LIFE, 12, item(12));
    // The line, answered before the bundle was written, goes on.
    outbox.handle(Millis(0), Event::Receipt(&receipt(&[(11, 12)], false, None)));
    assert_eq!(outbox.waiting(), 0);
    let mut older = receipt(&[(1, 11)], true, Some(7));
    parked(&mut older);
    assert_eq!(
        outbox.handle(Millis(0), Event::Brought(&older)),
        [],
        "12 stays, 3 was released since"
    );
    // What an answer proves anew it may also say to be parked; once more it says nothing.
    let mut outbox = self::outbox(10);
    exported(&mut outbox, 8, 1 << 20);
    let mut answer = receipt(&[(1, 10)], true, Some(8));
    parked(&mut answer);
    let told =
        Effect::Parked { epoch: LIFE, parked: vec![(3, ParkReason::FuturePeriod)], complete: true };
    assert!(outbox.handle(Millis(0), Event::Brought(&answer)).contains(&told));
    assert_eq!(outbox.handle(Millis(0), Event::Brought(&answer)), []);
}
