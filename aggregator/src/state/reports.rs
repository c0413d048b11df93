//! Reports written at the centre: folded in like an agent's, numbered by the centre itself.

use banyan_shared::catalogue::FormIx;
use banyan_shared::ids::{AgentId, Epoch, Millis, Position, Seq, UnitCode, VersionId};
use banyan_shared::period::Period;
use banyan_shared::report::{Lineage, Value, Version, current, heads};

use super::{State, StateError};
use crate::act::{Reports, StageChange};
use crate::cube::{AcceptedVersion, Cube, Decided, Report, Stored};

/// What is known of one report, its values in the order of the form's lines under the catalogue in force.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Every version, in order of identity.
    pub versions: Vec<Stored>,
    /// What they come to.
    pub report: Option<Report>,
    /// The cube's column of each line of the form.
    columns: Vec<Option<usize>>,
}

impl Known {
    /// The values of a version by lines; all missing if it takes the report back.
    pub fn values(&self, stored: &Stored) -> Vec<Value> {
        let content = &stored.content;
        let value = |column: &Option<usize>| {
            let value = column.and_then(|at| content.values.get(at)).copied();
            value.filter(|_| !content.withdrawn).unwrap_or(Value::Missing)
        };
        self.columns.iter().map(value).collect()
    }

    /// The version counted.
    pub fn counted(&self) -> Option<&Stored> {
        let current = self.report.as_ref()?.current?;
        self.versions.iter().find(|version| version.id == current)
    }

    /// The version whose values an operator's correction keeps where it names none: the one counted; where
    /// none is, the best of those that wait or stand returned, all of which the correction replaces.
    pub fn base(&self, lineage: &Lineage) -> Option<&Stored> {
        let best = || current(&self.list(), lineage).map(|(at, _)| &self.versions[at]);
        self.counted().or_else(best)
    }

    /// The versions as the choice among them looks at them.
    pub fn list(&self) -> Vec<Version> {
        let version = |stored: &Stored| Version {
            id: stored.id,
            how: stored.content.how,
            replaces: stored.content.replaces.clone(),
        };
        self.versions.iter().map(version).collect()
    }

    /// The versions that stand, those that wait for approval included: what an operator is shown.
    pub fn heads(&self, lineage: &Lineage) -> Vec<&Stored> {
        heads(&self.list(), lineage).into_iter().map(|at| &self.versions[at]).collect()
    }
}

impl State {
    /// What is known of one report.
    pub fn known(&self, facility: &UnitCode, form: FormIx, period: Period) -> Known {
        let model = &self.catalogue.forms[form.at()];
        let Some(store) = self.cube.form(&model.code) else { return Known::default() };
        let element = |element: banyan_shared::catalogue::ElementIx| {
            store.column(self.catalogue.elements[element.at()].code.as_str())
        };
        let (versions, report) = self.cube.known(facility, &model.code, period);
        Known {
            versions,
            report,
            columns: model.lines.iter().map(|line| element(line.element)).collect(),
        }
    }

    /// The next number of a version written at the centre.
    pub fn next_number(&self, writer: AgentId, epoch: Epoch) -> Seq {
        self.numbered.get(&(writer, epoch)).map_or(1, |last| last + 1)
    }

    /// Folds in reports written at the centre.
    pub(super) fn apply_reports(
        &mut self,
        reports: &Reports,
        position: Position,
        received_at: Millis,
    ) -> Result<(), StateError> {
        let list = reports.unpack().map_err(|source| StateError::Wire { position, source })?;
        let Some(held) = self.catalogues.get(&reports.catalogue) else {
            // An act is built under the catalogue in force, which the ledger holds before it.
            tracing::error!(position, "reports under a catalogue this ledger does not hold");
            return Ok(());
        };
        let catalogue = held.catalogue.clone();
        let today = self.catalogue.day_at(received_at);
        for (id, report) in list {
            self.note_number(id);
            let version = AcceptedVersion {
                facility: report.facility,
                form: report.form,
                period: report.period,
                id,
                content: report.content,
                received_at,
                position,
            };
            if version.content.withdrawn {
                // It adds no figure, so nothing speaks against it: parked, it would leave the figure it takes
                // back in the sums.
                self.count(&catalogue, version);
            } else {
                self.place(&catalogue, version, today);
            }
        }
        Ok(())
    }

    fn note_number(&mut self, id: VersionId) {
        let last = self.numbered.entry((id.writer, id.epoch)).or_default();
        *last = (*last).max(id.seq);
    }
}

/// Folds a sign-off, lock or opening into the cube.
pub(crate) fn apply_stage(
    cube: &mut Cube,
    change: &StageChange,
    position: Position,
    received_at: Millis,
) -> Result<(), StateError> {
    let cover = change.cover().map_err(|source| StateError::Wire { position, source })?;
    let (facilities, lives, periods) = &cover;
    let facility = |at: &u32| facilities.get(*at as usize);
    for covered in periods {
        let of: Vec<&UnitCode> = covered.facilities.iter().filter_map(facility).collect();
        let seen: Vec<_> = covered
            .seen
            .iter()
            .filter_map(|(at, life, seq)| {
                let (writer, epoch) = *lives.get(*life as usize)?;
                Some((facility(at)?, writer, epoch, *seq))
            })
            .collect();
        let decided = Decided { by: change.by.clone(), at: received_at, position };
        let what = (decided, change.stage, change.place.clone());
        cube.stage((&change.form, covered.period), what, &of, &seen);
    }
    Ok(())
}
