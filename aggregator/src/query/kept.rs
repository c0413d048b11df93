//! Rows that were worked out before, kept for as long as what they were read from stands.
//!
//! Promises that a kept row is the row that would be worked out now. Rows are read from sheets alone, so what
//! they depend on is known when they are made: the reports of the months looked at (by the generation of each
//! form's month), the places of facilities in them, the day of the question, and the moments at which a period
//! ends or a report becomes late ([`Basis`]). Whatever touches one of these makes the rows be worked out
//! again. The catalogue, the organisation and everything an operator decrees in them need no mention: they
//! have [`Plans`](super::plan::Plans) of their own. What depends on the sites or on the present moment itself
//! (completeness, freshness) is not kept. A question of a past moment keeps nothing.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use banyan_shared::catalogue::{ElementIx, FormIx, IndicatorIx};
use banyan_shared::ids::Millis;
use banyan_shared::period::{Date, Period, Span};
use foldhash::HashMap;

use super::Engine;
use super::answer::Row;
use super::asked::{Asked, When};
use super::request::Dims;
use super::sets::Scope;

/// Most figures kept, of some 400 bytes each: a county's month has 190.
const FIGURES_MAX: usize = 100_000;
/// Most figures of one answer that are kept.
const FIGURES_OF_ONE_MAX: usize = 20_000;

/// Everything of a question that the rows of one of its periods depend on, except what was reported and the
/// time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RowsAsked {
    pub(super) scope: Scope,
    pub(super) dims: Dims,
    /// The period of the rows.
    pub(super) span: Span,
    /// The day whose map it is; none = each period's own.
    pub(super) map: Option<Date>,
    /// None = every element.
    pub(super) elements: Option<Vec<ElementIx>>,
    /// None = every indicator shown.
    pub(super) indicators: Option<Vec<IndicatorIx>>,
    pub(super) names: bool,
}

/// The rows of one period of a question, in order.
#[derive(Debug, Default)]
pub(super) struct Worked {
    pub(super) rows: Vec<Arc<Row>>,
    /// The elements that they speak of.
    pub(super) elements: BTreeSet<ElementIx>,
}

/// One form's part of a [`Basis`].
#[derive(Debug)]
struct FormBasis {
    form: FormIx,
    /// How many places its facilities have.
    slots: usize,
    /// Each month or longer bundle looked at, and the number of its content.
    generations: Box<[(Period, u64)]>,
}

/// What rows were read from.
#[derive(Debug)]
struct Basis {
    /// The day of the question, which formulas over days are told.
    today: Date,
    /// From when on and before when no period ends and no report becomes late.
    from: Millis,
    until: Millis,
    forms: Box<[FormBasis]>,
}

#[derive(Debug)]
struct Kept {
    basis: Basis,
    worked: Arc<Worked>,
    figures: usize,
    /// When it was last asked for, in questions.
    used: AtomicU64,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct KeptRows {
    kept: RwLock<HashMap<RowsAsked, Kept>>,
    questions: AtomicU64,
}

impl KeptRows {
    /// The rows, if they would be the same today.
    pub(super) fn get(&self, asked: &Asked<'_>, key: &RowsAsked) -> Option<Arc<Worked>> {
        if asked.when.past.is_some() {
            return None;
        }
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        let found = kept.get(key).filter(|kept| kept.basis.stands(asked))?;
        found.used.store(self.questions.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        Some(found.worked.clone())
    }

    /// Keeps rows just worked out. When there are too many, the half not asked for longest goes.
    pub(super) fn keep(&self, asked: &Asked<'_>, key: RowsAsked, worked: &Arc<Worked>) {
        let figures = |row: &Arc<Row>| 1 + row.elements.0.len() + row.indicators.0.len();
        let figures: usize = worked.rows.iter().map(figures).sum();
        if asked.when.past.is_some() || figures > FIGURES_OF_ONE_MAX {
            return;
        }
        let used = AtomicU64::new(self.questions.fetch_add(1, Ordering::Relaxed));
        let new = Kept { basis: Basis::of(asked), worked: worked.clone(), figures, used };
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        kept.insert(key, new);
        if kept.values().map(|kept| kept.figures).sum::<usize>() > FIGURES_MAX {
            let mut used: Vec<u64> =
                kept.values().map(|kept| kept.used.load(Ordering::Relaxed)).collect();
            used.sort_unstable();
            let middle = used[used.len() / 2];
            kept.retain(|_, kept| kept.used.load(Ordering::Relaxed) >= middle);
        }
    }
}

impl Basis {
    /// Everything the question has looked at up to now.
    fn of(asked: &Asked<'_>) -> Basis {
        let now = asked.when.now;
        let mut until = Millis(i64::MAX);
        let mut forms: HashMap<FormIx, Vec<(Period, u64)>> = HashMap::default();
        asked.each_sheet(|sheet| {
            forms.entry(sheet.form).or_default().push((sheet.bundle, sheet.generation()));
            until = until.min(sheet.next_change(now));
        });
        let form = |(form, generations): (FormIx, Vec<(Period, u64)>)| FormBasis {
            form,
            slots: asked.slots(form).units.len(),
            generations: generations.into(),
        };
        Basis { today: asked.today, from: now, until, forms: forms.into_iter().map(form).collect() }
    }

    fn stands(&self, asked: &Asked<'_>) -> bool {
        let When { now, .. } = asked.when;
        let same = |basis: &FormBasis| {
            let engine = &asked.engine;
            let store = engine.cube.form(&engine.catalogue.forms[basis.form.at()].code);
            let generation = |of| store.map_or(0, |store| store.generation(of));
            let mut all = basis.generations.iter();
            asked.slots(basis.form).units.len() == basis.slots
                && all.all(|(bundle, number)| generation(*bundle) == *number)
        };
        self.today == asked.today
            && (self.from..self.until).contains(&now)
            && self.forms.iter().all(same)
    }
}

impl Engine<'_> {
    /// The rows of one period of a question: kept ones, or those that `work` makes. `asked` must be of this
    /// period alone, or what it has looked at for another is taken for a reason to make them again.
    pub(super) fn rows_of<E>(
        &self,
        asked: &Asked<'_>,
        key: RowsAsked,
        work: impl FnOnce(&RowsAsked) -> Result<Worked, E>,
    ) -> Result<Arc<Worked>, E> {
        if let Some(worked) = self.plans.rows().get(asked, &key) {
            return Ok(worked);
        }
        let worked = Arc::new(work(&key)?);
        self.plans.rows().keep(asked, key, &worked);
        Ok(worked)
    }
}
