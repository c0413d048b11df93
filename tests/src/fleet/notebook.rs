//! What is typed at one agent: daily reports of a village clinic, kept small.

use banyan_shared::catalogue::{Facts, Form, FormIx};
use banyan_shared::ids::{Seq, UnitCode};
use banyan_shared::organisation::UnitIx;
use banyan_shared::period::{Date, Period};
use banyan_shared::report::{Content, EnteredAt, How, Reason, Value};
use banyan_shared::wire::Body;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::counts::Area;
use crate::counts::numbers::Site;

/// When reports are typed, in minutes of the day UTC: six in the evening.
const EVENING_MINUTE: u32 = 10 * 60;
/// Cells of a notebook: missing, not applicable, numbers from 2 on.
const MISSING: u16 = 0;
const NOT_APPLICABLE: u16 = 1;
const NUMBERS: u16 = 2;

/// The largest number that is typed: all day forms of clinics ask for less.
const NUMBER_MAX: u64 = 60_000;

/// Which day an entry is about, and which version of it it is.
#[derive(Clone, Copy, Debug)]
struct Line {
    day: i32,
    version: u8,
}

/// Entries in order; entry number n stands at n − 1.
#[derive(Clone, Debug)]
pub(super) struct Notebook {
    /// The facility.
    pub(super) home: UnitCode,
    form: FormIx,
    width: usize,
    lines: Vec<Line>,
    cells: Vec<u16>,
}

fn cell(value: Value) -> u16 {
    match value {
        Value::Missing => MISSING,
        Value::NotApplicable => NOT_APPLICABLE,
        Value::Number(n) => u16::try_from(n.min(NUMBER_MAX)).unwrap_or(u16::MAX) + NUMBERS,
    }
}

fn value(cell: u16) -> Value {
    match cell {
        MISSING => Value::Missing,
        NOT_APPLICABLE => Value::NotApplicable,
        n => Value::Number(u64::from(n - NUMBERS)),
    }
}

impl Notebook {
    /// Reports of `days`, in order, drawn from the area's seed. `drawn_as` is the unit whose random numbers
    /// are used.
    pub(super) fn draw(
        area: &Area<'_>,
        (at, form): (FormIx, &Form),
        home: UnitIx,
        facts: &Facts,
        days: impl Iterator<Item = (Date, bool)>,
    ) -> Notebook {
        let mut random: StdRng = area.random(home, 0x21);
        let mut site = Site::new(area, home, area.market(home), &mut random);
        let mut random = StdRng::from_rng(&mut random);
        let mut notebook = Notebook {
            home: area.organisation.code(home).clone(),
            form: at,
            width: form.lines.len(),
            lines: Vec::new(),
            cells: Vec::new(),
        };
        for (day, holiday) in days {
            let period = Period::day(day);
            let drawn = site.report(area, form, period, facts, day, holiday, &mut random);
            let first = notebook.cells.len();
            notebook.cells.resize(first + notebook.width, MISSING);
            for (line, value) in drawn.values {
                notebook.cells[first + line] = cell(value);
            }
            notebook.lines.push(Line { day: day.days(), version: 0 });
        }
        notebook
    }

    /// Types a correction of the day the `at`-th line is about: the last number rises.
    pub(super) fn correct(&mut self, at: usize) {
        let day = self.lines[at].day;
        let newest = self.lines.iter().rposition(|line| line.day == day).unwrap_or(at);
        let version = self.lines[newest].version.saturating_add(1);
        let first = newest * self.width;
        let mut cells = self.cells[first..first + self.width].to_vec();
        if let Some(last) = cells.iter_mut().rev().find(|cell| **cell >= NUMBERS) {
            *last = last.saturating_add(1);
        }
        self.cells.extend(cells);
        self.lines.push(Line { day, version });
    }

    /// How many entries.
    pub(super) fn len(&self) -> u64 {
        self.lines.len() as u64
    }

    fn cells_of(&self, at: usize) -> &[u16] {
        &self.cells[at * self.width..(at + 1) * self.width]
    }

    /// The day entry `seq` is about.
    pub(super) fn day(&self, seq: Seq) -> Option<Date> {
        let at = usize::try_from(seq.checked_sub(1)?).ok()?;
        Date::from_days(self.lines.get(at)?.day)
    }

    /// The values of entry `seq`.
    pub(super) fn values(&self, seq: Seq) -> Option<Vec<Value>> {
        let at = usize::try_from(seq.checked_sub(1)?).ok()?;
        (at < self.lines.len()).then(|| self.cells_of(at).iter().map(|c| value(*c)).collect())
    }

    /// What entry `seq` says.
    pub(super) fn body(&self, seq: Seq) -> Option<Body> {
        let at = usize::try_from(seq.checked_sub(1)?).ok()?;
        let line = *self.lines.get(at)?;
        let day = Date::from_days(line.day)?;
        let typed_on = u32::try_from(line.day).unwrap_or(0) + u32::from(line.version);
        Some(Body::Report {
            facility: 0,
            form: self.form.0,
            period: Period::day(day),
            content: Content {
                values: self.values(seq)?,
                how: How::Direct,
                entered_by: None,
                reason: (line.version > 0).then_some(Reason::Recount),
                override_code: None,
                withdrawn: false,
                entered_at: EnteredAt {
                    minute: typed_on * 1_440 + EVENING_MINUTE,
                    doubtful: false,
                },
                replaces: Vec::new(),
            },
        })
    }

    /// Numbers in the first `entries` entries.
    pub(super) fn numbers(&self, entries: u64) -> u64 {
        let end = usize::try_from(entries).unwrap_or(usize::MAX).min(self.lines.len());
        self.cells[..end * self.width].iter().filter(|cell| **cell >= NUMBERS).count() as u64
    }

    /// What must be counted of the first `entries` entries: every day with its newest values.
    pub(super) fn newest(&self, entries: u64) -> std::collections::BTreeMap<i32, &[u16]> {
        let end = usize::try_from(entries).unwrap_or(usize::MAX).min(self.lines.len());
        (0..end).map(|at| (self.lines[at].day, self.cells_of(at))).collect()
    }

    /// The number in a cell of [`Notebook::newest`], if it is one.
    pub(super) fn number(cell: u16) -> Option<u64> {
        cell.checked_sub(NUMBERS).map(u64::from)
    }
}
