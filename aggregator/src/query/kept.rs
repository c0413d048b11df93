//! Rows that were worked out before, kept for as long as what they were read from stands.
//!
//! Promises that a kept row is the row that would be worked out now. Rows are read from sheets alone, so what
//! they depend on is known when they are made: the reports of the months looked at (by the generation of each
//! form's month), the places of facilities in them, the day of the question, and the moments at which a period
//! ends or a report becomes late ([`Basis`]). Whatever touches one of these makes the rows be worked out
//! again. The catalogue, the organisation and everything an operator decrees in them need no mention: they
//! have [`Plans`](super::plan::Plans) of their own. What depends on the sites or on the present moment itself
//! (completeness, freshness) is not kept. A question of a past moment keeps nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use banyan_shared::catalogue::{ElementIx, FormIx, IndicatorIx};
use banyan_shared::ids::Millis;
use banyan_shared::period::{Date, Period, Span};
use foldhash::HashMap;

use super::Engine;
use super::answer::{ElementFigure, IndicatorFigure, Row};
use super::asked::{Asked, When};
use super::request::Dims;
use super::sets::Scope;

/// Most bytes of rows kept. A county's month of 126 figures has 13 kB (51 kB, had each figure texts of its own),
/// up to 19 kB where nothing was reported and every indicator says what it lacks: the counties, cities and
/// networks of a province's year fit in.
const BYTES_MAX: usize = 40_000_000;
/// What is left of them once they are too many. Rows nobody asked for yet are made up to here only, or one
/// would be let go for the other for ever.
pub(super) const BYTES_LEFT: usize = BYTES_MAX / 8 * 7;
/// Most bytes of one period of an answer that are kept.
const BYTES_OF_ONE_MAX: usize = BYTES_MAX / 5;
/// What an allocation takes beside its content, about.
const ALLOCATION: usize = 16;

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
    /// The elements that they speak of, each once.
    pub(super) elements: Box<[ElementIx]>,
}

/// One form's part of a [`Basis`].
#[derive(Debug, PartialEq, Eq)]
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
    /// Most places' rows of a month are read from the same.
    forms: Arc<[FormBasis]>,
}

#[derive(Debug)]
struct Kept {
    basis: Basis,
    worked: Arc<Worked>,
    bytes: usize,
    /// When it was last asked for, in questions.
    used: AtomicU64,
}

#[derive(Debug, Default)]
struct Store {
    rows: HashMap<RowsAsked, Kept>,
    /// What they take.
    bytes: usize,
    /// What the rows kept last were read from.
    forms: Arc<[FormBasis]>,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct KeptRows {
    store: RwLock<Store>,
    questions: AtomicU64,
}

fn allocated(content: usize) -> usize {
    if content == 0 { 0 } else { content + ALLOCATION }
}

/// What a list's content takes.
fn list_bytes<T>(list: &[T]) -> usize {
    allocated(size_of_val(list))
}

/// What a row takes in memory, without what it shares.
pub(super) fn row_bytes(row: &Row) -> usize {
    let key = &row.key;
    let texts = [&key.unit, &key.network, &key.kind, &key.role, &key.name].into_iter().flatten();
    let path = key.path.iter().flatten();
    let texts = texts.chain(path).chain([&key.period]).map(|text| list_bytes(text.as_bytes()));
    let elements = row.elements.iter().filter_map(|(_, figure)| figure.remarks.as_deref());
    let indicators = row.indicators.iter().filter_map(|(_, figure)| figure.remarks.as_deref());
    let remarks = elements.chain(indicators).map(|remarks| {
        list_bytes(std::slice::from_ref(remarks))
            + list_bytes(&remarks.flags)
            + list_bytes(&remarks.absent)
            + list_bytes(&remarks.waiting_for)
    });
    let targets = row.indicators.iter().filter_map(|(_, figure)| figure.target.as_deref());
    let targets = targets.map(|target| list_bytes(std::slice::from_ref(target)));
    list_bytes(std::slice::from_ref(row))
        + key.path.as_deref().map_or(0, list_bytes)
        + texts.sum::<usize>()
        + allocated(row.elements.len() * size_of::<ElementFigure>())
        + allocated(row.indicators.len() * size_of::<IndicatorFigure>())
        + remarks.sum::<usize>()
        + targets.sum::<usize>()
}

impl Worked {
    /// What they take in memory.
    pub(super) fn bytes(&self) -> usize {
        self.rows.iter().map(|row| row_bytes(row)).sum::<usize>()
            + list_bytes(&self.rows)
            + list_bytes(&self.elements)
    }
}

impl Store {
    fn put(&mut self, key: RowsAsked, mut new: Kept) {
        if *new.basis.forms == *self.forms {
            new.basis.forms = self.forms.clone();
        } else {
            self.forms = new.basis.forms.clone();
            let generations = self.forms.iter().map(|form| list_bytes(&form.generations));
            new.bytes += list_bytes(&self.forms) + generations.sum::<usize>();
        }
        self.bytes += new.bytes;
        if let Some(old) = self.rows.insert(key, new) {
            self.bytes -= old.bytes;
        }
        if self.bytes > BYTES_MAX {
            self.shrink();
        }
    }

    fn take(&mut self, key: &RowsAsked) -> Option<Kept> {
        let kept = self.rows.remove(key)?;
        self.bytes -= kept.bytes;
        Some(kept)
    }

    /// Lets those go that were not asked for longest.
    fn shrink(&mut self) {
        let mut used: Vec<(u64, usize)> = self
            .rows
            .values()
            .map(|kept| (kept.used.load(Ordering::Relaxed), kept.bytes))
            .collect();
        used.sort_unstable();
        let mut left = self.bytes;
        let gone = used.iter().take_while(|(_, bytes)| {
            let too_many = left > BYTES_LEFT;
            left -= bytes;
            too_many
        });
        let Some((last, _)) = gone.last() else { return };
        self.rows.retain(|_, kept| kept.used.load(Ordering::Relaxed) > *last);
        self.bytes = self.rows.values().map(|kept| kept.bytes).sum();
    }
}

impl KeptRows {
    /// The rows, if they would be the same today.
    pub(super) fn get(&self, asked: &Asked<'_>, key: &RowsAsked) -> Option<Arc<Worked>> {
        if asked.when.past.is_some() {
            return None;
        }
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        let found = store.rows.get(key).filter(|kept| kept.basis.stands(asked))?;
        found.used.store(self.questions.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        Some(found.worked.clone())
    }

    /// What all that is kept takes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.store.read().unwrap_or_else(PoisonError::into_inner).bytes
    }

    /// Whether there are rows for the question that would be the same today. Unlike [`KeptRows::get`] this is
    /// no use of them.
    pub(super) fn has(&self, asked: &Asked<'_>, key: &RowsAsked) -> bool {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        store.rows.get(key).is_some_and(|kept| kept.basis.stands(asked))
    }

    /// Lets those go that would not be the same today.
    pub(super) fn tidy(&self, asked: &Asked<'_>) {
        let read = || self.store.read().unwrap_or_else(PoisonError::into_inner);
        let keys: Vec<RowsAsked> = read().rows.keys().cloned().collect();
        // Nobody waits meanwhile: each is looked at alone, and what goes is freed when the lock is.
        let gone: Vec<RowsAsked> = keys.into_iter().filter(|key| !self.has(asked, key)).collect();
        let mut store = self.store.write().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<Kept> = gone.iter().filter_map(|key| store.take(key)).collect();
        drop(store);
        drop(gone);
    }

    /// Whether more can be kept and nothing has to go.
    pub(super) fn has_room(&self) -> bool {
        self.bytes() < BYTES_LEFT
    }

    /// Keeps rows just worked out. When there are too many, those not asked for longest go.
    pub(super) fn keep(&self, asked: &Asked<'_>, key: RowsAsked, worked: &Arc<Worked>) {
        let bytes = size_of::<(RowsAsked, Kept)>() + worked.bytes();
        if asked.when.past.is_some() || bytes > BYTES_OF_ONE_MAX {
            return;
        }
        let used = AtomicU64::new(self.questions.fetch_add(1, Ordering::Relaxed));
        let new = Kept { basis: Basis::of(asked), worked: worked.clone(), bytes, used };
        self.store.write().unwrap_or_else(PoisonError::into_inner).put(key, new);
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
        let form = |(form, mut generations): (FormIx, Vec<(Period, u64)>)| {
            generations.sort_unstable();
            let slots = asked.slots(form).units.len();
            FormBasis { form, slots, generations: generations.into() }
        };
        let mut forms: Vec<FormBasis> = forms.into_iter().map(form).collect();
        forms.sort_unstable_by_key(|basis| basis.form);
        Basis { today: asked.today, from: now, until, forms: forms.into() }
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

#[cfg(test)]
mod tests {
    use banyan_shared::organisation::UnitIx;

    use super::*;

    #[test]
    fn those_not_asked_for_longest_go_and_no_more_than_have_to() {
        let key = |n| RowsAsked {
            scope: Scope::Unit(UnitIx(n)),
            dims: Dims::default(),
            span: "2026-01".parse().unwrap(),
            map: None,
            elements: None,
            indicators: None,
            names: false,
        };
        let today = Date::new(2026, 1, 1).unwrap();
        let kept = |used, bytes| Kept {
            basis: Basis { today, from: Millis(0), until: Millis(1), forms: Arc::default() },
            worked: Arc::default(),
            bytes,
            used: AtomicU64::new(used),
        };
        let mut store = Store::default();
        let tenth = BYTES_MAX / 10;
        for n in 0..10 {
            store.put(key(n), kept(u64::from(n), tenth));
        }
        assert_eq!((store.rows.len(), store.bytes), (10, 10 * tenth));
        store.rows[&key(0)].used.store(10, Ordering::Relaxed);
        store.put(key(10), kept(11, tenth));
        let left: Vec<bool> = (0..=10).map(|n| store.rows.contains_key(&key(n))).collect();
        let gone = [1, 2, 3];
        assert_eq!(left, (0..=10).map(|n| !gone.contains(&n)).collect::<Vec<_>>());
        assert_eq!(store.bytes, 8 * tenth);
        // Rows made anew take the place of those kept for the question.
        store.put(key(10), kept(12, 1));
        assert_eq!((store.rows.len(), store.bytes), (8, 7 * tenth + 1));
        assert!(store.take(&key(10)).is_some() && store.take(&key(10)).is_none());
        assert_eq!(store.bytes, 7 * tenth);
        store.put(key(11), kept(13, tenth));
        let rows = KeptRows { store: RwLock::new(store), ..KeptRows::default() };
        assert!(rows.has_room());
        rows.store.write().unwrap().put(key(12), kept(14, tenth));
        assert!(!rows.has_room(), "more than is left when some have to go");
    }
}
