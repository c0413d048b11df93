//! What the units of a group gave in one line of a form over a stretch of time, as columns.
//!
//! A question adds up the same columns for its elements and for every formula that counts them, so each is
//! read once from the sheets, run by run of neighbouring slots. Which units of a group belong to a figure is
//! left to those who ask.

use std::rc::Rc;

use banyan_shared::catalogue::FormIx;
use banyan_shared::period::{Period, Span};
use banyan_shared::report::Value;

use super::asked::{Asked, Got};
use super::sets::Group;
use super::sheet::{Answer, CHUNK, Sheet};
use super::span::{bundles, carried};

/// Units of a group that are neighbours in a form's slots and in one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The place of the first one in the group.
    pub(super) at: usize,
    /// The chunk, and the first one's place there.
    pub(super) chunk: usize,
    pub(super) place: usize,
    pub(super) len: usize,
}

/// See the module's text. Units without a slot gave nothing and were asked nothing.
pub(super) struct Given {
    len: usize,
    /// The lists named by [`List`], one after the other.
    counts: Box<[u16]>,
    /// The sum of the numbers.
    pub(super) sum: Box<[u64]>,
    /// Their sum over working days, where a formula asks for it.
    pub(super) working: Option<Box<[u64]>>,
    /// Stocks: the newest answer.
    pub(super) newest: Option<Newest>,
    /// Whether anybody was asked.
    pub(super) any: bool,
}

/// The lists of counts.
#[derive(Clone, Copy)]
enum List {
    Asked,
    Owed,
    Answered,
    NotApplicable,
    Numbers,
}

const LISTS: usize = 5;

/// The newest answers of a stock.
pub(super) struct Newest {
    answer: Box<[Answer]>,
    number: Box<[u64]>,
}

impl Newest {
    fn new(len: usize) -> Newest {
        Newest { answer: zeros(len), number: zeros(len) }
    }

    /// A unit's newest answer.
    pub(super) fn of(&self, at: usize) -> Value {
        match self.answer[at] {
            Answer::Missing => Value::Missing,
            Answer::NotApplicable => Value::NotApplicable,
            Answer::Number => Value::Number(self.number[at]),
        }
    }

    /// The newest numbers; 0 where the newest answer is none.
    pub(super) fn numbers(&self) -> &[u64] {
        &self.number
    }

    fn set(&mut self, at: usize, value: Value) {
        (self.answer[at], self.number[at]) = match value {
            Value::Missing => return,
            Value::NotApplicable => (Answer::NotApplicable, 0),
            Value::Number(n) => (Answer::Number, n),
        };
    }
}

fn zeros<T: Copy + Default>(len: usize) -> Box<[T]> {
    vec![T::default(); len].into_boxed_slice()
}

fn add(sums: &mut [u16], more: &[u8]) {
    for (sum, n) in sums.iter_mut().zip(more) {
        *sum += u16::from(*n);
    }
}

impl Given {
    fn new(len: usize, stock: bool) -> Given {
        Given {
            len,
            counts: zeros(LISTS * len),
            sum: zeros(len),
            working: None,
            newest: stock.then(|| Newest::new(len)),
            any: false,
        }
    }

    fn list(&self, list: List) -> &[u16] {
        let first = list as usize * self.len;
        &self.counts[first..first + self.len]
    }

    fn list_mut(&mut self, list: List) -> &mut [u16] {
        let first = list as usize * self.len;
        &mut self.counts[first..first + self.len]
    }

    /// Form-periods owed that ask the line, ended or not, by unit.
    pub(super) fn asked(&self) -> &[u16] {
        self.list(List::Asked)
    }

    /// Of them: ended.
    pub(super) fn owed(&self) -> &[u16] {
        self.list(List::Owed)
    }

    /// Of those ended: answered.
    pub(super) fn answered(&self) -> &[u16] {
        self.list(List::Answered)
    }

    /// Of those ended: answered "not applicable".
    pub(super) fn not_applicable(&self) -> &[u16] {
        self.list(List::NotApplicable)
    }

    /// Reports with a number.
    pub(super) fn numbers(&self) -> &[u16] {
        self.list(List::Numbers)
    }

    /// Adds what a later sheet holds of a run's units.
    fn take(&mut self, sheet: &Sheet, asked: &Asked<'_>, line: usize, run: Run) {
        let line = &sheet.lines(&asked.engine, asked.when, run.chunk)[line];
        let (here, there) = (run.at..run.at + run.len, run.place..run.place + run.len);
        let mut take = |list, more: &[u8; CHUNK]| {
            add(&mut self.list_mut(list)[here.clone()], &more[there.clone()]);
        };
        take(List::Asked, &line.asked);
        take(List::Owed, &line.owed);
        let Some(given) = &line.given else { return };
        take(List::Answered, &given.answered);
        take(List::NotApplicable, &given.not_applicable);
        take(List::Numbers, &given.numbers);
        given.sum.add_to(run.place, &mut self.sum[here.clone()]);
        if let Some(more) = &given.working {
            let working = self.working.get_or_insert_with(|| zeros(self.sum.len()));
            more.add_to(run.place, &mut working[here]);
        }
        if let Some(newest) = &mut self.newest {
            for at in 0..run.len {
                newest.set(run.at + at, given.newest(run.place + at));
            }
        }
    }

    /// What two lines come to together, the later one second.
    pub(super) fn joined(one: &Given, later: &Given) -> Given {
        fn both<T: Copy>(a: &[T], b: &[T], join: impl Fn(T, T) -> T) -> Box<[T]> {
            a.iter().zip(b).map(|(a, b)| join(*a, *b)).collect()
        }
        let sums = |a: &[u64], b: &[u64]| both(a, b, u64::saturating_add);
        let newest = one.newest.as_ref().zip(later.newest.as_ref()).map(|(one, later)| {
            let mut newest = Newest::new(one.answer.len());
            for at in 0..one.answer.len() {
                newest.set(at, one.of(at));
                newest.set(at, later.of(at));
            }
            newest
        });
        Given {
            len: one.len,
            counts: both(&one.counts, &later.counts, u16::saturating_add),
            sum: sums(&one.sum, &later.sum),
            working: match (&one.working, &later.working) {
                (Some(a), Some(b)) => Some(sums(a, b)),
                (a, b) => a.as_ref().or(b.as_ref()).cloned(),
            },
            newest,
            any: one.any || later.any,
        }
    }

    /// What one unit gave.
    pub(super) fn of(&self, at: usize) -> Got {
        Got {
            asked: u32::from(self.asked()[at]),
            owed: u32::from(self.owed()[at]),
            answered: u32::from(self.answered()[at]),
            not_applicable: u32::from(self.not_applicable()[at]),
            numbers: u32::from(self.numbers()[at]),
            late: 0,
            sum: self.sum[at],
            working: self.working.as_ref().map_or(0, |working| working[at]),
            last: self.newest.as_ref().map_or(Value::Missing, |newest| newest.of(at)),
            conflicts: false,
            restated: false,
        }
    }
}

impl<'e> Asked<'e> {
    /// Where a group's units lie in a form's slots. The group must be of a roster of this question.
    pub(super) fn runs(&self, group: &Group, form: FormIx) -> Rc<[Run]> {
        self.kept_runs(group, form, || {
            let map = self.slots(form);
            let mut runs: Vec<Run> = Vec::new();
            for (at, unit) in group.units.iter().enumerate() {
                let Some(slot) = map.slot(*unit) else { continue };
                let (chunk, place) = Sheet::place(slot);
                match runs.last_mut() {
                    Some(run)
                        if run.chunk == chunk
                            && run.place + run.len == place
                            && run.at + run.len == at =>
                    {
                        run.len += 1;
                    }
                    _ => runs.push(Run { at, chunk, place, len: 1 }),
                }
            }
            runs.into()
        })
    }

    /// What a group's units gave in a line over a span. The group must be of a roster of this question.
    pub(super) fn given(&self, group: &Group, form: FormIx, line: usize, span: Span) -> Rc<Given> {
        self.kept_given((group, form, line, span), false, || {
            let element = self.engine.catalogue.forms[form.at()].lines[line].element;
            let stock = self.engine.catalogue.elements[element.at()].over_time.is_stock();
            let mut given = Given::new(group.units.len(), stock);
            let runs = self.runs(group, form);
            if !runs.is_empty() {
                for sheet in self.sheets(form, span).iter() {
                    for run in runs.iter() {
                        given.take(sheet, self, line, *run);
                    }
                }
            }
            given.any = given.asked().iter().any(|n| *n > 0);
            given
        })
    }

    /// The newest value of an element asked rarely, of each unit: the span's own, or one carried from before.
    /// It counts as asked while its form is owed for the period the span ends in, or a value stands.
    pub(super) fn standing(
        &self,
        group: &Group,
        (form, line): (FormIx, usize),
        span: Span,
        carry_months: u16,
    ) -> Rc<Given> {
        self.kept_given((group, form, line, span), true, || {
            let len = group.units.len();
            let mut given = Given::new(len, true);
            let own = self.engine.catalogue.forms[form.at()].period_type;
            let present = self.sheet(form, Period::containing(own, span.last_day()));
            let runs = self.runs(group, form);
            let mut open: Vec<(usize, usize, usize)> = Vec::with_capacity(len);
            for run in runs.iter() {
                let line = &present.lines(&self.engine, self.when, run.chunk)[line];
                for n in 0..run.len {
                    let place = run.place + n;
                    given.list_mut(List::Asked)[run.at + n] = u16::from(line.asked[place] > 0);
                    open.push((run.at + n, run.chunk, place));
                }
            }
            let mut periods = bundles(own, span);
            periods.reverse();
            periods.extend(carried(own, span, carry_months));
            for bundle in periods {
                if open.is_empty() {
                    break;
                }
                let sheet = self.sheet(form, bundle);
                open.retain(|(at, chunk, place)| {
                    let line = &sheet.lines(&self.engine, self.when, *chunk)[line];
                    let Some(held) = &line.given else { return true };
                    let value = held.newest(*place);
                    if !value.is_answer() {
                        return true;
                    }
                    let has_number = held.numbers[*place] > 0;
                    given.list_mut(List::Asked)[*at] = 1;
                    given.list_mut(List::Answered)[*at] = 1;
                    given.list_mut(List::Numbers)[*at] = u16::from(has_number);
                    if let Some(newest) = &mut given.newest {
                        newest.set(*at, value);
                    }
                    false
                });
            }
            given.any = given.asked().iter().any(|n| *n > 0);
            given
        })
    }
}
