//! A report's history, version by version: going on from the last one comes to the same as looking at all.

use std::cell::Cell;

use banyan_shared::ids::Epoch;
use proptest::prelude::*;

use super::*;

thread_local! {
    /// How many versions were looked at in all.
    pub(super) static LOOKED_AT: Cell<usize> = const { Cell::new(0) };
}

fn version(writer: u8, life: u32, seq: u64, received: i64, value: Value) -> Stored {
    let received_at = Millis(1_770_000_000_000 + received);
    Stored {
        id: VersionId {
            writer: AgentId([writer; 6]),
            epoch: Epoch { counter: life, random: life },
            seq,
        },
        received_at,
        position: 1,
        content: Content {
            values: vec![value],
            how: How::Direct,
            entered_by: None,
            reason: None,
            override_code: None,
            withdrawn: value == Value::NotApplicable,
            entered_at: EnteredAt { minute: received_at.minute(), doubtful: false },
            replaces: Vec::new(),
        },
    }
}

struct Begun {
    block: Block,
    authors: Arc<Authors>,
    lineage: Lineage,
}

impl Begun {
    fn new() -> Begun {
        Begun { block: Block::default(), authors: Arc::default(), lineage: Lineage::default() }
    }

    fn insert(&mut self, stored: Stored) {
        self.block.insert(0, 1, stored, &mut self.authors, &self.lineage, None);
    }
}

#[test]
fn ten_thousand_corrections_by_one_writer_are_as_many_steps() {
    let mut begun = Begun::new();
    let before = LOOKED_AT.get();
    for n in 1..=10_000_u64 {
        // Many in one batch, received in one moment.
        let received = i64::try_from(n / 1000).unwrap();
        begun.insert(version(7, 1, n, received, Value::Number(n)));
    }
    assert!(LOOKED_AT.get() - before < 10, "{}", LOOKED_AT.get() - before);
    let report = &begun.block.histories[&0].report;
    assert_eq!((report.versions, report.heads), (10_000, 1));
    assert_eq!(begun.block.columns[0].value(0), Value::Number(10_000));
}

proptest! {
    #[test]
    fn going_on_comes_to_what_looking_at_all_versions_does(
        steps in prop::collection::vec(
            (0_u8..24, 0_u8..24, 0_i64..3, 0_u8..4, 0_u8..16),
            1..24,
        ),
    ) {
        let mut begun = Begun::new();
        let mut versions: Vec<Stored> = Vec::new();
        let (mut received, mut seq) = (10, 0);
        for (other_writer, other_life, later, value, back) in steps {
            received += if back == 0 { -2 } else { later };
            seq += 1;
            let value = match value {
                0 => Value::Missing,
                // Withdrawn.
                1 => Value::NotApplicable,
                n => Value::Number(u64::from(n)),
            };
            let writer = if other_writer == 0 { 8 } else { 7 };
            let life = if other_life == 0 { 2 } else { 1 };
            let number = if back == 1 { 1000 - seq } else { seq };
            let one = version(writer, life, number, received, value);
            begun.insert(one.clone());
            versions.push(one);
            versions.sort_by_key(|version| version.id);
            let expected = decide(&versions, &begun.lineage, None);
            if versions.len() > 1 {
                let history = &begun.block.histories[&0];
                prop_assert_eq!(&history.versions, &versions);
                prop_assert_eq!(&history.report, &expected);
            }
            let at = versions.iter().position(|version| Some(version.id) == expected.current);
            let shown = at.map(|at| &versions[at].content).filter(|content| !content.withdrawn);
            let shown = shown.map_or(Value::Missing, |content| content.values[0]);
            prop_assert_eq!(begun.block.columns.first().map_or(Value::Missing, |c| c.value(0)), shown);
        }
    }
}
