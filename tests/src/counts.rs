//! Plausible counts for the demo and the tests: what the staff of some counties would type in two months.
//!
//! Pure and seeded: the same seed, registry and months give the same counts. Most numbers are zero; weeks,
//! market days and holidays have their rhythm; days are forgotten, numbers corrected, reports taken back,
//! some sites are late. No report breaks a rule of severity "error", as the agent would not have saved it.

use banyan_shared::catalogue::{Catalogue, FormIx};
use banyan_shared::ids::UnitCode;
use banyan_shared::organisation::{Organisation, UnitIx};
use banyan_shared::period::{Date, Period, PeriodType};
use banyan_shared::report::{How, Reason, Value};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub(crate) mod numbers;

use numbers::Site;

/// In how many goes the two months are typed.
pub const STAGES: usize = 6;

/// A report as it is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Typed {
    /// The facility.
    pub facility: UnitCode,
    /// Its place in the registry.
    pub unit: UnitIx,
    /// The form.
    pub form: FormIx,
    /// The period.
    pub period: Period,
    /// The values typed, by the form's lines; lines not named keep what they were.
    pub values: Vec<(usize, Value)>,
    /// The facility was closed: the values are all zero.
    pub closed: bool,
    /// Takes the report back.
    pub withdraw: bool,
    /// Entered for another facility.
    pub proxy: bool,
    /// Why, for a correction.
    pub reason: Option<Reason>,
    /// In which go it is typed, from 0.
    pub stage: usize,
}

impl Typed {
    /// How a person at the agent's own facility enters it.
    pub fn how(&self) -> How {
        if self.proxy { How::Proxy } else { How::Direct }
    }
}

/// Whose agent it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Desk {
    /// A village clinic's own.
    Village,
    /// A township's or street's health centre, with its villages by proxy.
    Township,
    /// A hospital's, a regional centre's or the county desk's.
    Hospital,
}

/// An agent and what is typed there, in order of stages.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its home.
    pub home: UnitCode,
    /// Whose it is.
    pub desk: Desk,
    /// The township whose clinics it reports for by proxy.
    pub below: Option<UnitCode>,
    /// What is typed.
    pub typed: Vec<Typed>,
}

/// Where and when.
#[derive(Clone, Debug)]
pub struct Area<'a> {
    /// The catalogue.
    pub catalogue: &'a Catalogue,
    /// The organisation.
    pub organisation: &'a Organisation,
    /// The months, in order.
    pub months: Vec<Period>,
    /// What the random numbers start from.
    pub seed: u64,
}

/// Which share of the village clinics has an agent of its own, in percent.
const OWN_AGENT_PERCENT: u32 = 55;
/// Which share of townships does not report for its villages, in percent.
const NO_PROXY_PERCENT: u32 = 8;

impl Area<'_> {
    /// Random numbers of one unit's own: adding a unit changes nothing elsewhere.
    pub(crate) fn random(&self, unit: UnitIx, salt: u64) -> StdRng {
        // FNV-1a: spreads codes that differ in one digit.
        let start = 0xcbf2_9ce4_8422_2325 ^ self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt;
        let code = self.organisation.code(unit).as_str();
        let hash = code
            .bytes()
            .fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        StdRng::seed_from_u64(hash)
    }

    /// The agents of every facility below `area`, with the clinics of its townships.
    pub fn county(&self, area: UnitIx) -> Vec<Plan> {
        let today = self.months.last().map_or(Date::MIN, |month| month.last_day());
        let mut plans = Vec::new();
        for child in self.organisation.children_on(area, today) {
            if self.is_facility(child) {
                plans.push(self.alone(child, Desk::Hospital));
            } else {
                self.township(child, today, &mut plans);
            }
        }
        plans
    }

    /// The agents of these facilities, each for itself only.
    pub fn facilities(&self, units: &[UnitIx]) -> Vec<Plan> {
        let desk = |unit: UnitIx| match self.kind(unit) {
            "village_clinic" => Desk::Village,
            "township_health_centre" | "community_health_centre" => Desk::Township,
            _ => Desk::Hospital,
        };
        units.iter().map(|unit| self.alone(*unit, desk(*unit))).collect()
    }

    fn is_facility(&self, unit: UnitIx) -> bool {
        self.organisation.reporters().contains(&unit)
    }

    /// Whether the calendar calls this day a holiday, in the province as a whole.
    pub(crate) fn holiday(&self, day: Date) -> bool {
        let top = self.organisation.roots_on(day).first().copied();
        top.and_then(|top| self.organisation.calendar_on(top, day))
            .is_some_and(|(working, _)| !working)
    }

    pub(crate) fn kind(&self, unit: UnitIx) -> &str {
        let today = self.months.last().map_or(Date::MIN, |month| month.last_day());
        self.catalogue.kinds[self.organisation.kind_on(unit, today).at()].code.as_str()
    }

    fn alone(&self, unit: UnitIx, desk: Desk) -> Plan {
        let mut random = self.random(unit, 1);
        let mut typed = self.reports(unit, self.market(unit), false);
        self.second_thoughts(&mut typed, &mut random);
        if random.random_ratio(6, 100) {
            // A late site: nothing until the end, then everything.
            typed.iter_mut().for_each(|typed| typed.stage = STAGES - 1);
        }
        typed.sort_by_key(|typed| typed.stage);
        Plan { home: self.organisation.code(unit).clone(), desk, below: None, typed }
    }

    fn township(&self, township: UnitIx, today: Date, plans: &mut Vec<Plan>) {
        let mut random = self.random(township, 2);
        let below = self.organisation.facilities_below(township, today);
        let (clinics, centres): (Vec<UnitIx>, Vec<UnitIx>) =
            below.into_iter().partition(|unit| self.kind(*unit) == "village_clinic");
        let by_proxy = !random.random_ratio(NO_PROXY_PERCENT, 100);
        let mut proxied = Vec::new();
        for clinic in clinics {
            if random.random_ratio(OWN_AGENT_PERCENT, 100) {
                let plan = self.alone(clinic, Desk::Village);
                if by_proxy && random.random_ratio(1, 4) {
                    // Typed at the township too, from what the clinic said by telephone.
                    proxied.extend(self.heard(&plan, &mut random));
                }
                plans.push(plan);
            } else if by_proxy {
                proxied.extend(self.reports(clinic, self.market(clinic), true));
            }
        }
        for (at, centre) in centres.into_iter().enumerate() {
            let mut plan = self.alone(centre, Desk::Township);
            if at == 0 && by_proxy {
                plan.below = Some(self.organisation.code(township).clone());
                plan.typed.append(&mut proxied);
                plan.typed.sort_by_key(|typed| typed.stage);
            }
            plans.push(plan);
        }
    }

    /// A few of a clinic's reports as the township enters them as well: the same or slightly other numbers.
    fn heard(&self, plan: &Plan, random: &mut StdRng) -> Vec<Typed> {
        let daily = |typed: &&Typed| {
            typed.period.kind() == PeriodType::Day && !typed.withdraw && typed.reason.is_none()
        };
        let known: Vec<&Typed> = plan.typed.iter().filter(daily).collect();
        if known.is_empty() {
            return Vec::new();
        }
        let count = random.random_range(1..=4);
        let mut heard: Vec<Typed> = Vec::new();
        for _ in 0..count {
            let mut typed = known[random.random_range(0..known.len())].clone();
            if heard.iter().any(|other| other.period == typed.period) {
                continue;
            }
            typed.proxy = true;
            if !typed.closed && random.random_ratio(2, 3) {
                // The number of follow-ups is in no rule.
                if let Some((_, Value::Number(n))) = typed.values.last_mut() {
                    *n += random.random_range(1..=3);
                }
            }
            heard.push(typed);
        }
        heard
    }

    /// The market's day in the five-day round of the unit's township.
    pub(crate) fn market(&self, unit: UnitIx) -> i32 {
        let today = self.months.last().map_or(Date::MIN, |month| month.last_day());
        let parent = self.organisation.parent_on(unit, today).unwrap_or(unit);
        let parent = match self.kind(parent) {
            "village" => self.organisation.parent_on(parent, today).unwrap_or(parent),
            _ => parent,
        };
        self.random(parent, 3).random_range(0..5)
    }

    /// What is typed about one unit in all months.
    fn reports(&self, unit: UnitIx, market: i32, proxy: bool) -> Vec<Typed> {
        let mut random = self.random(unit, 4);
        let mut site = Site::new(self, unit, market, &mut random);
        // A few are careless; whoever reports for others forgets more.
        let forgotten = if random.random_ratio(8, 100) {
            25
        } else if proxy {
            6
        } else {
            3
        };
        let days: u32 = self.months.iter().map(|month| month.day_count()).sum();
        let first = self.months.first().map_or(0, |month| month.first_day().days());
        let facts_kind = self.organisation.kind_on(unit, site.day());
        let mut typed = Vec::new();
        for (at, form) in (0u16..).zip(&self.catalogue.forms) {
            if !form.kinds.contains(&facts_kind) {
                continue;
            }
            for period in self.months.iter().flat_map(|month| month.parts(form.period_type)) {
                if !self.months.iter().any(|month| month.contains(period)) {
                    // A year is not over.
                    continue;
                }
                let Some(day) = self.organisation.duty_day(unit, period) else { continue };
                if !form.in_force(period) {
                    continue;
                }
                // Numbers are drawn whether they are typed or not: in-patients stay in bed all the same.
                let facts = self.organisation.facts_on(unit, day);
                let holiday = self.holiday(day);
                let drawn = site.report(self, form, period, &facts, day, holiday, &mut random);
                let share = if form.period_type == PeriodType::Day { forgotten } else { 2 };
                if random.random_ratio(share, 100) {
                    continue;
                }
                let past = u32::try_from(period.last_day().days() - first).unwrap_or(0);
                let stage = (past as usize * STAGES) / days.max(1) as usize;
                typed.push(Typed {
                    facility: self.organisation.code(unit).clone(),
                    unit,
                    form: FormIx(at),
                    period,
                    values: drawn.values,
                    closed: drawn.closed,
                    withdraw: false,
                    proxy,
                    reason: None,
                    stage: stage.min(STAGES - 1),
                });
            }
        }
        typed
    }

    /// Corrections and withdrawals of what was typed, in a later go.
    fn second_thoughts(&self, typed: &mut Vec<Typed>, random: &mut StdRng) {
        let mut more = Vec::new();
        for first in typed.iter() {
            let stage = (first.stage + 1).min(STAGES - 1);
            if random.random_ratio(2, 100) && !first.closed {
                let last = first.values.iter().rev().find(|(_, value)| value.number().is_some());
                let form = &self.catalogue.forms[first.form.at()];
                // Only daily forms end in a number that no rule ties to others.
                if let (Some((line, Value::Number(n))), PeriodType::Day) = (last, form.period_type)
                {
                    let n = n + random.random_range(1..=5);
                    let reason = if random.random() { Reason::Recount } else { Reason::Typo };
                    more.push(Typed {
                        values: vec![(*line, Value::Number(n))],
                        reason: Some(reason),
                        stage,
                        ..first.clone()
                    });
                }
            } else if random.random_ratio(3, 1000) {
                more.push(Typed {
                    values: Vec::new(),
                    closed: false,
                    withdraw: true,
                    reason: Some(Reason::WrongPeriod),
                    stage,
                    ..first.clone()
                });
            }
        }
        typed.append(&mut more);
    }
}

#[cfg(test)]
mod tests;
