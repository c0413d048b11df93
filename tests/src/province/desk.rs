//! An agent, day by day: what is typed at it, what it forgets, when it sends.

use std::collections::{BTreeMap, HashMap};

use banyan_aggregator::act::Below;
use banyan_shared::catalogue::{Facts, FormIx};
use banyan_shared::ids::{AgentId, ContextNumber, Epoch, Seq, UnitCode};
use banyan_shared::keys::{SigningKey, sha256};
use banyan_shared::organisation::UnitIx;
use banyan_shared::period::{Date, Period, PeriodType};
use banyan_shared::report::{Content, EnteredAt, How, Reason, Value};
use banyan_shared::wire::{Batch, Beacon, Body, Entry, Hello};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{NO_PROXY_PERCENT, SENDING, Year};
use crate::counts::numbers::Site;

/// Entries in one batch: what an agent cuts stays well below the byte limit.
const ENTRIES_A_BATCH: usize = 256;
/// Days a closed clinic is still reported for by a desk that has not heard.
const UNHEARD_DAYS: i32 = 4;
/// When day forms are typed, in minutes of the day, local time being eight hours ahead of UTC.
const EVENING_MINUTE_UTC: u32 = (18 - 8) * 60;

/// A batch on its way.
pub(super) struct Sent {
    /// When on its day: a place in [`SENDING`].
    pub(super) moment: usize,
    /// As signed.
    pub(super) bytes: Vec<u8>,
    /// What is in it.
    pub(super) batch: Batch,
    /// Reports in it that are not about another's or an earlier one.
    pub(super) reports: u64,
    /// Numbers in it.
    pub(super) counts: u64,
}

/// An entry without its number, and whether it is the first about its report.
struct Typed {
    body: Body,
    first: bool,
}

/// A facility as one desk reports for it.
struct Facility {
    unit: UnitIx,
    code: UnitCode,
    /// Its place in the desk's context.
    place: u32,
    site: Site,
    random: StdRng,
    how: How,
    /// In percent.
    forgets: u32,
    /// In the present month.
    facts: Facts,
    /// First day no longer open, this year.
    closes: Option<Date>,
    /// Its place at the township's desk, which may type the same.
    twice: Option<u32>,
}

/// An agent.
pub(super) struct Desk {
    pub(super) home: UnitCode,
    pub(super) below: Vec<Below>,
    pub(super) key: SigningKey,
    pub(super) context: ContextNumber,
    agent: AgentId,
    epoch: Epoch,
    next: Seq,
    facilities: Vec<Facility>,
    staffed: bool,
    every: i32,
    phase: i32,
    moment: usize,
    random: StdRng,
    queue: Vec<Typed>,
    later: BTreeMap<Date, Vec<Typed>>,
    /// Without a line: from, until.
    away: (Date, Date),
}

/// A township's desks, the one that reports for the villages first; or one other facility.
pub(super) struct Township {
    /// Facilities in the registry.
    pub(super) sites: u32,
    pub(super) desks: Vec<Desk>,
}

impl Township {
    pub(super) fn new(year: &Year<'_>, above: Option<UnitIx>, units: &[UnitIx]) -> Township {
        let organisation = year.organisation();
        let sites = u32::try_from(units.len()).unwrap_or(u32::MAX);
        let mut desks: Vec<Desk> = Vec::new();
        let mut random = year.area.random(above.unwrap_or(units[0]), 0x11);
        let is_clinic = |unit: &&UnitIx| year.area.kind(**unit) == "village_clinic";
        let proxies = above.is_some() && !random.random_ratio(NO_PROXY_PERCENT, 100);
        for unit in units.iter().filter(|unit| !is_clinic(unit)) {
            let mut desk = Desk::new(year, *unit, 1);
            if let Some(above) = above.filter(|_| proxies && desks.is_empty()) {
                let unit = organisation.code(above).clone();
                desk.below = vec![Below { unit, kind: Some("village_clinic".to_owned()) }];
                desk.staffed = true;
            }
            desks.push(desk);
        }
        for unit in units.iter().filter(is_clinic) {
            let own = random.random_ratio(year.options.own_percent.min(100), 100);
            let by_township = proxies && !desks.is_empty();
            if own {
                let every = i32::try_from(year.options.every.max(1)).unwrap_or(i32::MAX);
                let desk = Desk::new(year, *unit, every);
                desks.push(desk);
            } else if by_township {
                let facility = Facility::new(year, *unit, How::Proxy);
                desks[0].facilities.push(facility);
            }
        }
        Township { sites, desks }
    }

    /// Tells the clinics' own desks under which numbers the township may report for them as well.
    pub(super) fn overlaps(&mut self, facilities: &[UnitCode]) {
        let places: HashMap<&UnitCode, u32> = facilities.iter().zip(0..).collect();
        for facility in self.desks.iter_mut().skip(1).flat_map(|desk| &mut desk.facilities) {
            facility.twice = places.get(&facility.code).copied();
        }
    }

    pub(super) fn day(&mut self, year: &Year<'_>, date: Date, sent: &mut Vec<Sent>) {
        let mut heard = Vec::new();
        for desk in &mut self.desks {
            desk.day(year, date, sent, &mut heard);
        }
        if let Some(desk) = self.desks.first_mut() {
            desk.queue.append(&mut heard);
        }
    }
}

impl Facility {
    fn new(year: &Year<'_>, unit: UnitIx, how: How) -> Facility {
        let organisation = year.organisation();
        let mut random = year.area.random(unit, 0x12);
        let market = year.area.market(unit);
        let site = Site::new(&year.area, unit, market, &mut random);
        let careless = random.random_ratio(6, 100);
        let forgets = match how {
            _ if careless => 25,
            How::Proxy => 4,
            _ => 2,
        };
        let first = year.options.from.first_day();
        let last = organisation.info(unit).spells.last();
        Facility {
            unit,
            code: organisation.code(unit).clone(),
            place: 0,
            site,
            random,
            how,
            forgets,
            facts: organisation.facts_on(unit, first),
            closes: last.and_then(|spell| spell.to),
            twice: None,
        }
    }

    /// Draws the report of a form; none if it is forgotten or not due.
    fn report(
        &mut self,
        year: &Year<'_>,
        form: FormIx,
        period: Period,
        minute: u32,
    ) -> Option<Content> {
        let model = &year.catalogue().forms[form.at()];
        if !model.in_force(period) {
            return None;
        }
        let day = period.last_day();
        let holiday = year.holidays.contains(&day);
        let drawn = self.site.report(
            &year.area,
            model,
            period,
            &self.facts,
            day,
            holiday,
            &mut self.random,
        );
        let share = if period.kind() == PeriodType::Day { self.forgets } else { 2 };
        if self.random.random_ratio(share, 100) {
            return None;
        }
        let mut values = vec![Value::Missing; model.lines.len()];
        for (line, value) in drawn.values {
            values[line] = value;
        }
        Some(Content {
            values,
            how: self.how,
            entered_by: None,
            reason: None,
            override_code: None,
            withdrawn: false,
            entered_at: EnteredAt { minute, doubtful: false },
            replaces: Vec::new(),
        })
    }
}

/// Minutes since 1970 of the evening of a day.
fn evening(date: Date) -> u32 {
    u32::try_from(date.days()).unwrap_or(0) * 1_440 + EVENING_MINUTE_UTC
}

impl Desk {
    fn new(year: &Year<'_>, home: UnitIx, every: i32) -> Desk {
        let code = year.organisation().code(home);
        let digest =
            sha256(&[b"agent", &year.options.seed.to_le_bytes(), code.as_str().as_bytes()]);
        let key = SigningKey::from_seed(&digest).expect("every 32 bytes are the seed of a key");
        let mut random = StdRng::from_seed(sha256(&[b"desk", &digest]));
        let weights: u32 = SENDING.iter().map(|(_, weight)| weight).sum();
        let drawn = random.random_range(0..weights);
        let mut before = 0;
        let moment = SENDING.iter().position(|(_, weight)| {
            before += weight;
            drawn < before
        });
        Desk {
            home: code.clone(),
            below: Vec::new(),
            agent: key.public().agent_id(),
            key,
            context: 0,
            epoch: Epoch { counter: 1, random: random.random() },
            next: 1,
            facilities: vec![Facility::new(year, home, How::Direct)],
            staffed: false,
            every,
            phase: random.random_range(0..every),
            moment: moment.unwrap_or(0),
            random,
            queue: Vec::new(),
            later: BTreeMap::new(),
            away: (Date::MIN, Date::MIN),
        }
    }

    /// Notes the context the desk was given.
    pub(super) fn granted(&mut self, context: ContextNumber, facilities: &[UnitCode]) {
        self.context = context;
        let places: HashMap<&UnitCode, u32> = facilities.iter().zip(0..).collect();
        for facility in &mut self.facilities {
            facility.place = places.get(&facility.code).copied().unwrap_or(0);
        }
    }

    fn day(&mut self, year: &Year<'_>, date: Date, sent: &mut Vec<Sent>, heard: &mut Vec<Typed>) {
        if date.ymd().2 == 1 {
            self.month_begins(year, date);
        }
        if let Some(due) = self.later.remove(&date) {
            self.queue.extend(due);
        }
        let end = year.options.end();
        if date == end {
            // Not received any more: what would be sent next.
            self.type_day(year, date.plus(-1), heard);
        }
        let last = date.plus(1) >= end;
        let away = self.away.0 <= date && date < self.away.1;
        if last || !away && (date.days() + self.phase).rem_euclid(self.every) == 0 {
            self.send(date, sent);
        }
        if date <= year.options.last_day() {
            self.type_day(year, date, heard);
        }
    }

    fn month_begins(&mut self, year: &Year<'_>, date: Date) {
        let before = Period::containing(PeriodType::Month, date).plus(-1);
        if year.area.months.contains(&before) {
            self.type_forms(year, before, 1);
            if date.ymd().1 == 1 {
                self.type_forms(year, Period::containing(PeriodType::Year, before.first_day()), 2);
            }
        }
        for facility in &mut self.facilities {
            if facility.closes.is_none_or(|closes| date < closes) {
                facility.facts = year.organisation().facts_on(facility.unit, date);
            }
        }
        self.away = if self.random.random_ratio(4, 100) {
            let from = date.plus(self.random.random_range(0..28));
            (from, from.plus(self.random.random_range(8..25)))
        } else {
            (Date::MIN, Date::MIN)
        };
    }

    /// Month or year forms (`every`: 1 or 2) of a period that is over, typed within the days they are due.
    fn type_forms(&mut self, year: &Year<'_>, period: Period, every: usize) {
        for at in 0..self.facilities.len() {
            let facility = &mut self.facilities[at];
            if year.organisation().duty_day(facility.unit, period).is_none() {
                continue;
            }
            for form in &year.forms[facility.facts.kind.at()][every] {
                let due = i32::from(year.catalogue().forms[form.at()].due.days.clamp(1, 15));
                let days = if self.random.random_ratio(4, 100) { due + 4 } else { due };
                let on = period.last_day().plus(self.random.random_range(1..=days));
                let facility = &mut self.facilities[at];
                let Some(content) = facility.report(year, *form, period, evening(on)) else {
                    continue;
                };
                let body = Body::Report { facility: facility.place, form: form.0, period, content };
                self.later.entry(on).or_default().push(Typed { body, first: true });
            }
        }
    }

    fn type_day(&mut self, year: &Year<'_>, date: Date, heard: &mut Vec<Typed>) {
        let period = Period::day(date);
        for at in 0..self.facilities.len() {
            let facility = &mut self.facilities[at];
            if facility.closes.is_some_and(|closes| closes.plus(UNHEARD_DAYS) <= date) {
                continue;
            }
            for form in &year.forms[facility.facts.kind.at()][0] {
                let facility = &mut self.facilities[at];
                let Some(mut content) = facility.report(year, *form, period, evening(date)) else {
                    continue;
                };
                if self.staffed {
                    content.entered_by =
                        Some(if date.days() % 7 < 4 { "w01" } else { "w02" }.to_owned());
                }
                let place = facility.place;
                let again = |facility: u32, content: Content| Typed {
                    body: Body::Report { facility, form: form.0, period, content },
                    first: false,
                };
                if let Some(twice) = facility.twice
                    && facility.random.random_ratio(1, 1_000)
                {
                    let content = Content { how: How::Proxy, ..recounted(&content, 1, None) };
                    heard.push(again(twice, content));
                }
                let second = if self.random.random_ratio(2, 100) {
                    let reason = if self.random.random() { Reason::Recount } else { Reason::Typo };
                    Some(recounted(&content, self.random.random_range(1..=5), Some(reason)))
                } else if self.random.random_ratio(3, 1_000) {
                    let values = vec![Value::Missing; content.values.len()];
                    let reason = Some(Reason::WrongPeriod);
                    Some(Content { values, withdrawn: true, reason, ..content.clone() })
                } else {
                    None
                };
                if let Some(mut second) = second {
                    let on = date.plus(self.random.random_range(1..=9));
                    second.entered_at.minute = evening(on);
                    self.later.entry(on).or_default().push(again(place, second));
                }
                let body = Body::Report { facility: place, form: form.0, period, content };
                self.queue.push(Typed { body, first: true });
            }
        }
    }

    /// Cuts and signs what waits.
    fn send(&mut self, date: Date, sent: &mut Vec<Sent>) {
        if self.queue.is_empty() {
            return;
        }
        let mut queue = std::mem::take(&mut self.queue);
        let mut waiting = queue.len();
        // A few go to the machine late on a day.
        let late = self.random.random_ratio(4, 100);
        while !queue.is_empty() {
            let rest = queue.split_off(queue.len().min(ENTRIES_A_BATCH));
            let some = std::mem::replace(&mut queue, rest);
            let clock_minute = evening(date) - 600;
            let hello = Hello {
                nonce: self.random.random(),
                beacon: Beacon {
                    version: (0, 1, 0),
                    waiting: u32::try_from(waiting).unwrap_or(u32::MAX),
                    oldest_waiting: Some(clock_minute - 720),
                    refused: 0,
                    clock_minute,
                    clock_trusted: true,
                    free_disk_mib: 20_000,
                    last_error: 0,
                },
                operating: None,
            };
            waiting -= some.len();
            let reports = some.iter().filter(|typed| typed.first).count() as u64;
            let counts = some.iter().map(|typed| numbers(&typed.body)).sum();
            let first = self.next;
            self.next += some.len() as u64;
            let entries = some.into_iter().zip(first..);
            let batch = Batch {
                agent: self.agent,
                epoch: self.epoch,
                context: self.context,
                hello: Some(hello),
                entries: entries.map(|(typed, seq)| Entry { seq, body: typed.body }).collect(),
            };
            let bytes = batch.seal(&self.key);
            let moment = if late { SENDING.len() - 1 } else { self.moment };
            sent.push(Sent { moment, bytes, batch, reports, counts });
        }
    }
}

fn numbers(body: &Body) -> u64 {
    let Body::Report { content, .. } = body else { return 0 };
    content.values.iter().filter(|value| value.number().is_some()).count() as u64
}

/// The same with a larger last number, which no rule of a day form ties to others.
fn recounted(content: &Content, more: u64, reason: Option<Reason>) -> Content {
    let mut content = Content { reason, ..content.clone() };
    let last = content.values.iter_mut().rev().find(|value| value.number().is_some());
    if let Some(Value::Number(n)) = last {
        *n += more;
    }
    content
}
