//! Telling whether two cubes hold the same: used to check the cube against a fresh reading of the ledger.

use banyan_shared::ids::{ElementCode, FormCode, UnitCode, VersionId};
use banyan_shared::period::Period;
use banyan_shared::report::Value;
use ring::digest::{Context, SHA256};

use super::{Block, Cube, FormStore, Slot};

/// A sum over everything a cube holds, independent of the order in which it came.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(u128);

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{:032x}", self.0))
    }
}
impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

struct Sink(Context);

impl Sink {
    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.update(text.as_bytes());
    }

    fn number(&mut self, n: u64) {
        self.0.update(&n.to_le_bytes());
    }

    fn sum(self) -> u128 {
        let digest = self.0.finish();
        let bytes = digest.as_ref().first_chunk::<16>().expect("SHA-256 has 32 bytes");
        u128::from_le_bytes(*bytes)
    }

    fn id(&mut self, id: VersionId) {
        self.0.update(&id.writer.0);
        self.number(u64::from(id.epoch.counter) << 32 | u64::from(id.epoch.random));
        self.number(id.seq);
    }

    fn values<'a>(&mut self, values: impl Iterator<Item = (&'a ElementCode, Value)>) {
        let mut given: Vec<_> = values.filter(|(_, value)| value.is_answer()).collect();
        given.sort_by_key(|(element, _)| *element);
        self.number(given.len() as u64);
        for (element, value) in given {
            self.text(element.as_str());
            match value.number() {
                Some(n) => {
                    self.number(1);
                    self.number(n);
                }
                None => self.number(0),
            }
        }
    }
}

impl Cube {
    fn report_digest(&self, form: &FormStore, period: Period, block: &Block, slot: Slot) -> u128 {
        let mut sink = Sink(Context::new(&SHA256));
        sink.text(form.code().as_str());
        sink.text(&period.to_string());
        sink.text(self.facility_code(form.slots()[slot as usize]).as_str());
        for version in block.versions(slot, self.authors()) {
            let content = &version.content;
            sink.id(version.id);
            sink.number(version.position);
            sink.number(version.received_at.0.cast_unsigned());
            sink.text(content.how.code());
            sink.text(content.entered_by.as_deref().unwrap_or(""));
            sink.text(content.reason.map_or("", |reason| reason.code()));
            sink.text(content.override_code.map_or("", |code| code.code()));
            sink.number(u64::from(content.withdrawn));
            sink.number(u64::from(content.entered_at.minute));
            sink.number(u64::from(content.entered_at.doubtful));
            sink.number(content.replaces.len() as u64);
            content.replaces.iter().for_each(|id| sink.id(*id));
            sink.values(form.columns().iter().zip(content.values.iter().copied()));
        }
        // What is counted, read from the cells themselves: a wrong cell shows.
        if let Some(report) = block.report(slot, self.authors()) {
            if let Some(id) = report.current {
                sink.id(id);
            }
            sink.number(report.heads as u64);
            sink.number(report.pending as u64);
            sink.number(u64::from(report.returned) << 1 | u64::from(report.restated));
            sink.number(report.arrived.map_or(0, |at| at.0.cast_unsigned()));
        }
        sink.values(
            form.columns().iter().enumerate().map(|(at, element)| (element, block.value(at, slot))),
        );
        sink.sum()
    }

    /// The sum over every report. Two cubes built from the same versions have the same, in whatever order
    /// the versions came.
    pub fn digest(&self) -> Digest {
        let mut sum = 0u128;
        for form in self.forms() {
            for (period, slot, decision) in form.decisions().all() {
                let mut sink = Sink(Context::new(&SHA256));
                sink.text(form.code().as_str());
                sink.text(&period.to_string());
                sink.text(self.facility_code(form.slots()[slot as usize]).as_str());
                sink.text(&format!("{decision:?}"));
                sum = sum.wrapping_add(sink.sum());
            }
            for (period, block) in form.blocks() {
                for slot in block.present_slots() {
                    sum = sum.wrapping_add(self.report_digest(form, period, &block, slot));
                }
            }
        }
        Digest(sum)
    }

    /// The reports that differ between this cube and another, at most `limit` of them.
    pub fn differences(&self, other: &Cube, limit: usize) -> Vec<(UnitCode, FormCode, Period)> {
        let mut found = Vec::new();
        for (one, two) in [(self, other), (other, self)] {
            for form in one.forms() {
                let theirs = two.form(form.code());
                for (period, block) in form.blocks() {
                    let block2 = theirs.and_then(|form2| form2.block(period));
                    for slot in block.present_slots() {
                        if found.len() >= limit {
                            return found;
                        }
                        let code = one.facility_code(form.slots()[slot as usize]);
                        let place = two.place(code, form.code());
                        let same = match (theirs, &block2, place) {
                            (Some(form2), Some(block2), Some((_, slot2))) => {
                                block2.present(slot2)
                                    && one.report_digest(form, period, &block, slot)
                                        == two.report_digest(form2, period, block2, slot2)
                            }
                            _ => false,
                        };
                        let key = (code.clone(), form.code().clone(), period);
                        if !same && !found.contains(&key) {
                            found.push(key);
                        }
                    }
                }
            }
        }
        found
    }
}
