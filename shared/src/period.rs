//! Days and periods: what a report is about.
//!
//! Promises a real calendar: a [`Date`] or [`Period`] that exists in memory exists in the calendar,
//! every text form of `docs/formats.md` reads to one value, and periods of a type are numbered without
//! gaps, so that iteration is counting. Leaves due times to the catalogue, which knows the time zone.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::catalogue::Lang;

/// The earliest year accepted in any date.
pub const YEAR_MIN: i16 = 1900;
/// The latest year accepted in any date.
pub const YEAR_MAX: i16 = 2200;

/// Why a text is not a date or a period.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeriodError {
    /// The shape is right, the calendar has no such day, week or month.
    #[error("{text:?} does not exist in the calendar: {reason}")]
    Impossible {
        /// The text as it stood.
        text: String,
        /// What there is not.
        reason: Lack,
    },
    /// The shape is none of the accepted ones.
    #[error(
        "{text:?} is not a period: write a day 2026-01-31, an ISO week 2026W05, a month 2026-01, \
         a quarter 2026Q1, a half 2026S1 or a year 2026"
    )]
    Shape {
        /// The text as it stood.
        text: String,
    },
    /// A range whose ends differ in type or stand in the wrong order.
    #[error("{text:?} is not a range: both ends must be of one type, the earlier first")]
    Range {
        /// The text as it stood.
        text: String,
    },
}

impl PeriodError {
    /// What people read: the reason, and what to write instead.
    pub fn text(&self, lang: Lang) -> String {
        match (lang, self) {
            (Lang::En, error) => error.to_string(),
            (Lang::Zh, PeriodError::Impossible { text, reason }) => {
                format!("日历中没有“{text}”：{}", reason.text(lang))
            }
            (Lang::Zh, PeriodError::Shape { text }) => format!(
                "“{text}”不是统计期：日 2026-01-31、周 2026W05、月 2026-01、季 2026Q1、半年 2026S1、年 2026"
            ),
            (Lang::Zh, PeriodError::Range { text }) => {
                format!("“{text}”不是区间：两端须为同一类型且先后有序")
            }
        }
    }
}

/// What the calendar has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The year.
    Year,
    /// The half-year.
    Half,
    /// The quarter.
    Quarter,
    /// The month.
    Month,
    /// The ISO week of the year.
    Week,
    /// The day of the month.
    Day,
}

impl Lack {
    /// What people read.
    pub fn text(self, lang: Lang) -> &'static str {
        match (self, lang) {
            (Lack::Year, Lang::Zh) => "年份须在 1900 至 2200 之间",
            (Lack::Year, Lang::En) => "years run from 1900 to 2200",
            (Lack::Half, Lang::Zh) => "半年为 S1 或 S2",
            (Lack::Half, Lang::En) => "a half is S1 or S2",
            (Lack::Quarter, Lang::Zh) => "季度为 Q1 至 Q4",
            (Lack::Quarter, Lang::En) => "a quarter is Q1 to Q4",
            (Lack::Month, Lang::Zh) => "月份为 01 至 12",
            (Lack::Month, Lang::En) => "a month is 01 to 12",
            (Lack::Week, Lang::Zh) => "该年没有这一周（ISO 周）",
            (Lack::Week, Lang::En) => "the year has no such ISO week",
            (Lack::Day, Lang::Zh) => "该月没有这一天",
            (Lack::Day, Lang::En) => "the month has no such day",
        }
    }
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text(Lang::En))
    }
}

/// A calendar day, as days since 1970-01-01. Always between [`YEAR_MIN`] and [`YEAR_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Date(i32);

impl Date {
    /// The first day any date may name.
    pub const MIN: Date = Date(-25_567);
    /// The last day any date may name.
    pub const MAX: Date = Date(84_370);

    /// The day `year`-`month`-`day`, if the calendar has it.
    pub fn new(year: i16, month: i8, day: i8) -> Option<Date> {
        if !(YEAR_MIN..=YEAR_MAX).contains(&year) {
            return None;
        }
        jiff::civil::Date::new(year, month, day).ok().map(Date::of)
    }

    /// The day `days` after 1970-01-01, if it lies between [`Date::MIN`] and [`Date::MAX`].
    pub fn from_days(days: i32) -> Option<Date> {
        (Date::MIN.0..=Date::MAX.0).contains(&days).then_some(Date(days))
    }

    /// Days since 1970-01-01; negative before.
    pub fn days(self) -> i32 {
        self.0
    }

    fn of(date: jiff::civil::Date) -> Date {
        let epoch = jiff::civil::date(1970, 1, 1);
        let days = date.duration_since(epoch).as_secs() / 86_400;
        Date(i32::try_from(days).unwrap_or(i32::MAX))
    }

    /// The same day as `jiff` holds it.
    pub fn civil(self) -> jiff::civil::Date {
        jiff::civil::date(1970, 1, 1)
            .checked_add(jiff::Span::new().days(self.0))
            .expect("a Date lies between MIN and MAX, well inside jiff's range")
    }

    /// This day moved by `days`, stopping at [`Date::MIN`] and [`Date::MAX`].
    pub fn plus(self, days: i32) -> Date {
        Date(self.0.saturating_add(days).clamp(Date::MIN.0, Date::MAX.0))
    }

    /// 0 for Monday … 6 for Sunday.
    pub fn weekday(self) -> u8 {
        // 1970-01-01 was a Thursday.
        u8::try_from((self.0 + 3).rem_euclid(7)).expect("a remainder of 7 fits")
    }

    /// Year, month 1–12, day 1–31.
    pub fn ymd(self) -> (i16, i8, i8) {
        let civil = self.civil();
        (civil.year(), civil.month(), civil.day())
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (y, m, d) = self.ymd();
        f.pad(&format!("{y:04}-{m:02}-{d:02}"))
    }
}
impl fmt::Debug for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl FromStr for Date {
    type Err = PeriodError;
    fn from_str(text: &str) -> Result<Date, PeriodError> {
        match text.parse::<Period>()? {
            period if period.kind() == PeriodType::Day => Ok(period.first_day()),
            _ => Err(PeriodError::Shape { text: text.to_owned() }),
        }
    }
}

/// How long a period is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeriodType {
    /// A calendar day.
    Day,
    /// An ISO 8601 week, Monday to Sunday.
    Week,
    /// A calendar month.
    Month,
    /// Three months from January, April, July or October.
    Quarter,
    /// Six months from January or July.
    Half,
    /// A calendar year.
    Year,
}

impl PeriodType {
    /// Every type, finest first.
    pub const ALL: [PeriodType; 6] = [
        PeriodType::Day,
        PeriodType::Week,
        PeriodType::Month,
        PeriodType::Quarter,
        PeriodType::Half,
        PeriodType::Year,
    ];

    /// `day`, `week`, `month`, `quarter`, `half` or `year`.
    pub fn name(self) -> &'static str {
        match self {
            PeriodType::Day => "day",
            PeriodType::Week => "week",
            PeriodType::Month => "month",
            PeriodType::Quarter => "quarter",
            PeriodType::Half => "half",
            PeriodType::Year => "year",
        }
    }

    fn months(self) -> Option<i32> {
        match self {
            PeriodType::Day | PeriodType::Week => None,
            PeriodType::Month => Some(1),
            PeriodType::Quarter => Some(3),
            PeriodType::Half => Some(6),
            PeriodType::Year => Some(12),
        }
    }
}

impl fmt::Display for PeriodType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
impl FromStr for PeriodType {
    type Err = PeriodError;
    fn from_str(text: &str) -> Result<PeriodType, PeriodError> {
        PeriodType::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| PeriodError::Shape { text: text.to_owned() })
    }
}

/// One period of one type. Ordered by type, then by time.
///
/// `index` counts periods of the type: days and ISO weeks since the one holding 1970-01-01,
/// months, quarters, halves and years since the one beginning there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Period {
    kind: PeriodType,
    index: i32,
}

impl Period {
    /// The period of type `kind` that holds `date`.
    pub fn containing(kind: PeriodType, date: Date) -> Period {
        let index = match kind.months() {
            None if kind == PeriodType::Day => date.0,
            None => (date.0 + 3).div_euclid(7),
            Some(months) => {
                let (year, month, _) = date.ymd();
                ((i32::from(year) - 1970) * 12 + i32::from(month) - 1).div_euclid(months)
            }
        };
        Period { kind, index }
    }

    /// The day `date` as a period.
    pub fn day(date: Date) -> Period {
        Period { kind: PeriodType::Day, index: date.0 }
    }

    /// The month `month` (1–12) of `year`, if both are in range.
    pub fn month(year: i16, month: i8) -> Option<Period> {
        Date::new(year, month, 1).map(|date| Period::containing(PeriodType::Month, date))
    }

    /// The period with this number among those of its type (see [`Period::index`]), if all its days
    /// lie between [`Date::MIN`] and [`Date::MAX`].
    pub fn from_index(kind: PeriodType, index: i32) -> Option<Period> {
        let low = Period::containing(kind, Date::MIN.plus(7)).index;
        let high = Period::containing(kind, Date::MAX.plus(-7)).index;
        (low..=high).contains(&index).then_some(Period { kind, index })
    }

    /// Its type.
    pub fn kind(self) -> PeriodType {
        self.kind
    }

    /// Its number among the periods of its type; 0 holds 1970-01-01.
    pub fn index(self) -> i32 {
        self.index
    }

    /// Its first day.
    pub fn first_day(self) -> Date {
        match self.kind.months() {
            None if self.kind == PeriodType::Day => Date(self.index),
            None => Date(self.index * 7 - 3),
            Some(months) => month_start(self.index * months),
        }
    }

    /// Its last day.
    pub fn last_day(self) -> Date {
        match self.kind.months() {
            None if self.kind == PeriodType::Day => Date(self.index),
            None => Date(self.index * 7 + 3),
            Some(months) => Date(month_start((self.index + 1) * months).0 - 1),
        }
    }

    /// How many days it has.
    pub fn day_count(self) -> u32 {
        u32::try_from(self.last_day().0 - self.first_day().0 + 1)
            .expect("a period's last day never precedes its first")
    }

    /// The period of the same type `n` later (earlier if negative).
    pub fn plus(self, n: i32) -> Period {
        Period { kind: self.kind, index: self.index.saturating_add(n) }
    }

    /// Whether every day of `other` lies in this period.
    pub fn contains(self, other: Period) -> bool {
        self.first_day() <= other.first_day() && other.last_day() <= self.last_day()
    }

    /// Whether `date` lies in this period.
    pub fn has_day(self, date: Date) -> bool {
        self.first_day() <= date && date <= self.last_day()
    }

    /// The periods of type `kind` lying wholly inside this one, in order. An ISO week across its edge
    /// is left out.
    pub fn parts(self, kind: PeriodType) -> PeriodIter {
        Span::of(self).parts(kind)
    }

    /// The same period a year earlier; for an ISO week, the week of the same number (the last one for
    /// week 53 where the earlier year has none).
    pub fn year_earlier(self) -> Period {
        match self.kind {
            PeriodType::Day => {
                let (y, m, d) = self.first_day().ymd();
                // 29 February goes back to the 28th.
                let date = Date::new(y - 1, m, d).or_else(|| Date::new(y - 1, m, d - 1));
                date.map_or_else(|| self.plus(-365), Period::day)
            }
            PeriodType::Week => {
                let iso = self.first_day().civil().iso_week_date();
                let find = |week| {
                    jiff::civil::ISOWeekDate::new(
                        iso.year() - 1,
                        week,
                        jiff::civil::Weekday::Monday,
                    )
                    .ok()
                    .map(|w| Period::containing(PeriodType::Week, Date::of(w.date())))
                };
                find(iso.week()).or_else(|| find(52)).unwrap_or_else(|| self.plus(-52))
            }
            PeriodType::Month => self.plus(-12),
            PeriodType::Quarter => self.plus(-4),
            PeriodType::Half => self.plus(-2),
            PeriodType::Year => self.plus(-1),
        }
    }
}

fn month_start(index: i32) -> Date {
    let year = i16::try_from(1970 + index.div_euclid(12)).unwrap_or(i16::MAX);
    let month = i8::try_from(index.rem_euclid(12) + 1).expect("a month number is 1 to 12");
    jiff::civil::Date::new(year.clamp(1, 9998), month, 1)
        .map(Date::of)
        .expect("the first of a month exists in every year from 1 to 9998")
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (y, m, _) = self.first_day().ymd();
        let text = match self.kind {
            PeriodType::Day => self.first_day().to_string(),
            PeriodType::Week => {
                let iso = self.first_day().civil().iso_week_date();
                format!("{:04}W{:02}", iso.year(), iso.week())
            }
            PeriodType::Month => format!("{y:04}-{m:02}"),
            PeriodType::Quarter => format!("{y:04}Q{}", (m - 1) / 3 + 1),
            PeriodType::Half => format!("{y:04}S{}", (m - 1) / 6 + 1),
            PeriodType::Year => format!("{y:04}"),
        };
        f.pad(&text)
    }
}
impl fmt::Debug for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Period {
    type Err = PeriodError;

    /// Reads `2026-01-31`, `20260131`, `2026W05`, `2026W5`, `2026-01`, `202601`, `2026Q1`, `2026S1`
    /// or `2026`.
    fn from_str(text: &str) -> Result<Period, PeriodError> {
        let shape = || PeriodError::Shape { text: text.to_owned() };
        let impossible = |reason| PeriodError::Impossible { text: text.to_owned(), reason };
        let number = |part: &str, digits: std::ops::RangeInclusive<usize>| {
            let ok = digits.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
            if ok { part.parse::<i16>().ok() } else { None }
        };
        if !text.is_ascii() || text.len() < 4 {
            return Err(shape());
        }
        let (year, rest) = text.split_at(4);
        let year = number(year, 4..=4).ok_or_else(shape)?;
        let in_range = (YEAR_MIN..=YEAR_MAX).contains(&year);
        let month_of = |month: i16| {
            i8::try_from(month)
                .ok()
                .and_then(|month| Period::month(year, month))
                .ok_or_else(|| impossible(if in_range { Lack::Month } else { Lack::Year }))
        };
        let day_of = |month: i16, day: i16| {
            month_of(month)?;
            i8::try_from(month)
                .ok()
                .zip(i8::try_from(day).ok())
                .and_then(|(month, day)| Date::new(year, month, day))
                .map(Period::day)
                .ok_or_else(|| impossible(Lack::Day))
        };
        let part_of = |count: i16, n: i16, kind: PeriodType, reason| {
            if !(1..=count).contains(&n) {
                return Err(impossible(reason));
            }
            let month = i8::try_from((n - 1) * (12 / count) + 1)
                .expect("a part of a year begins in month 1 to 12");
            let date = Date::new(year, month, 1).ok_or_else(|| impossible(Lack::Year))?;
            Ok(Period::containing(kind, date))
        };
        let parsed = match rest.as_bytes() {
            [] => part_of(1, 1, PeriodType::Year, Lack::Year),
            [b'Q', ..] => {
                let n = number(&rest[1..], 1..=1).ok_or_else(shape)?;
                part_of(4, n, PeriodType::Quarter, Lack::Quarter)
            }
            [b'S', ..] => {
                let n = number(&rest[1..], 1..=1).ok_or_else(shape)?;
                part_of(2, n, PeriodType::Half, Lack::Half)
            }
            [b'W', ..] => {
                let n = number(&rest[1..], 1..=2).ok_or_else(shape)?;
                let week = i8::try_from(n).ok().and_then(|week| {
                    jiff::civil::ISOWeekDate::new(year, week, jiff::civil::Weekday::Monday).ok()
                });
                week.map(|w| Period::containing(PeriodType::Week, Date::of(w.date())))
                    .ok_or_else(|| impossible(Lack::Week))
            }
            [b'-', ..] => match rest[1..].split_once('-') {
                None => month_of(number(&rest[1..], 2..=2).ok_or_else(shape)?),
                Some((month, day)) => day_of(
                    number(month, 2..=2).ok_or_else(shape)?,
                    number(day, 2..=2).ok_or_else(shape)?,
                ),
            },
            _ if rest.len() == 2 => month_of(number(rest, 2..=2).ok_or_else(shape)?),
            _ if rest.len() == 4 => day_of(
                number(&rest[..2], 2..=2).ok_or_else(shape)?,
                number(&rest[2..], 2..=2).ok_or_else(shape)?,
            ),
            _ => Err(shape()),
        }?;
        if in_range { Ok(parsed) } else { Err(impossible(Lack::Year)) }
    }
}

/// A stretch of days made of one period or of several adjoining ones of one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Span {
    first: Period,
    last: Period,
}

impl Span {
    /// A single period.
    pub fn of(period: Period) -> Span {
        Span { first: period, last: period }
    }

    /// From `first` to `last`, if they are of one type and in order.
    pub fn new(first: Period, last: Period) -> Option<Span> {
        (first.kind == last.kind && first.index <= last.index).then_some(Span { first, last })
    }

    /// The type of the periods it is made of.
    pub fn kind(self) -> PeriodType {
        self.first.kind
    }

    /// Its first day.
    pub fn first_day(self) -> Date {
        self.first.first_day()
    }

    /// Its last day.
    pub fn last_day(self) -> Date {
        self.last.last_day()
    }

    /// The single period, if it is one.
    pub fn single(self) -> Option<Period> {
        (self.first == self.last).then_some(self.first)
    }

    /// Whether every day of `period` lies in it.
    pub fn contains(self, period: Period) -> bool {
        self.first_day() <= period.first_day() && period.last_day() <= self.last_day()
    }

    /// The periods of type `kind` lying wholly inside it, in order.
    pub fn parts(self, kind: PeriodType) -> PeriodIter {
        let mut first = Period::containing(kind, self.first_day());
        if first.first_day() < self.first_day() {
            first = first.plus(1);
        }
        let mut last = Period::containing(kind, self.last_day());
        if last.last_day() > self.last_day() {
            last = last.plus(-1);
        }
        PeriodIter { kind, next: first.index, last: last.index }
    }

    /// Whether a period of type `kind` crosses one of its edges (so that [`Span::parts`] leaves days out).
    pub fn cuts(self, kind: PeriodType) -> bool {
        Period::containing(kind, self.first_day()).first_day() < self.first_day()
            || Period::containing(kind, self.last_day()).last_day() > self.last_day()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.single() {
            Some(period) => period.fmt(f),
            None => f.pad(&format!("{}..{}", self.first, self.last)),
        }
    }
}
impl FromStr for Span {
    type Err = PeriodError;
    /// Reads a period, or two of one type joined by `..`.
    fn from_str(text: &str) -> Result<Span, PeriodError> {
        match text.split_once("..") {
            None => text.parse().map(Span::of),
            Some((first, last)) => Span::new(first.parse()?, last.parse()?)
                .ok_or_else(|| PeriodError::Range { text: text.to_owned() }),
        }
    }
}

/// Periods of one type in order; see [`Span::parts`].
#[derive(Clone, Debug)]
pub struct PeriodIter {
    kind: PeriodType,
    next: i32,
    last: i32,
}

impl Iterator for PeriodIter {
    type Item = Period;
    fn next(&mut self) -> Option<Period> {
        if self.next > self.last {
            return None;
        }
        let period = Period { kind: self.kind, index: self.next };
        self.next += 1;
        Some(period)
    }
    fn size_hint(&self) -> (usize, Option<usize>) {
        let n = usize::try_from(i64::from(self.last) - i64::from(self.next) + 1).unwrap_or(0);
        (n, Some(n))
    }
}
impl ExactSizeIterator for PeriodIter {}

#[cfg(test)]
mod tests;
