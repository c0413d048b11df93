//! Typed = counted: the aggregator's answers held against the model, cell by cell.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context, Result};
use banyan_shared::catalogue::{Catalogue, Form, OverTime, Scope};
use banyan_shared::ids::UnitCode;
use banyan_shared::organisation::Organisation;
use banyan_shared::period::{Period, PeriodType};
use banyan_shared::report::Value;
use serde_json::{Value as Json, json};

use crate::harness::Aggregator;
use crate::model::{Counted, Key, Model};

/// Elements asked for in one question.
const ELEMENTS_AT_A_TIME: usize = 5;
/// Most differences kept to be shown.
pub const DIFFERENCES_MAX: usize = 20;

/// What was compared, and what differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// Cells compared: facility × element × period.
    pub cells: u64,
    /// Of them: with a number.
    pub numbers: u64,
    /// Of them: not applicable.
    pub not_applicable: u64,
    /// Of them: typed by nobody or taken back, and so empty.
    pub empty: u64,
    /// Sums over an area and a month compared.
    pub sums: u64,
    /// Numbers of reports received and in conflict compared.
    pub tallies: u64,
    /// Reports of which several versions stand.
    pub conflicts: u64,
    /// How many differences there are.
    pub different: u64,
    /// The first of them.
    pub differences: Vec<String>,
}

impl Proof {
    fn differs(&mut self, text: impl FnOnce() -> String) {
        self.different += 1;
        if self.differences.len() < DIFFERENCES_MAX {
            self.differences.push(text());
        }
    }
}

/// What the proof needs.
#[derive(Clone, Copy, Debug)]
pub struct Against<'a> {
    /// The catalogue.
    pub catalogue: &'a Catalogue,
    /// The organisation.
    pub organisation: &'a Organisation,
    /// What was typed.
    pub model: &'a Model,
    /// Who counted.
    pub centre: &'a Aggregator,
}

/// A cell of an answer.
type Cell = (String, String, String);

impl Against<'_> {
    /// Compares everything typed in these units and months.
    ///
    /// # Errors
    /// The aggregator cannot be asked.
    pub fn prove(&self, places: &[&str], months: &[Period]) -> Result<Proof> {
        let counted: BTreeMap<&Key, Counted> = self.model.counted().collect();
        let mut proof = Proof::default();
        for place in places {
            for month in months {
                self.cells(&counted, place, *month, PeriodType::Day, &mut proof)?;
                self.cells(&counted, place, *month, PeriodType::Month, &mut proof)?;
                self.sums(&counted, place, *month, &mut proof)?;
            }
        }
        Ok(proof)
    }

    fn is_in(&self, code: &UnitCode, place: &str, period: Period) -> bool {
        if code.as_str() == place {
            return true;
        }
        let (Some(unit), Some(area)) =
            (self.organisation.unit(code.as_str()), self.organisation.unit(place))
        else {
            return false;
        };
        let day = self.organisation.duty_day(unit, period).unwrap_or(period.last_day());
        self.organisation.is_below(unit, area, day)
    }

    /// Every cell of a period type in a place and month.
    fn cells(
        &self,
        counted: &BTreeMap<&Key, Counted>,
        place: &str,
        month: Period,
        every: PeriodType,
        proof: &mut Proof,
    ) -> Result<()> {
        let catalogue = self.catalogue;
        let mut elements = BTreeSet::new();
        for form in catalogue.forms.iter().filter(|form| form.period_type == every) {
            elements.extend(form.lines.iter().map(|line| line.element.at()));
        }
        let codes: Vec<&str> =
            elements.into_iter().map(|at| catalogue.elements[at].code.as_str()).collect();
        let mut got: HashMap<Cell, (String, Option<u64>)> = HashMap::new();
        for some in codes.chunks(ELEMENTS_AT_A_TIME) {
            let csv = self.centre.call(&json!({
                "command": "query", "unit": place, "period": month.to_string(),
                "by": ["facility", every.name()], "element": some, "format": "csv",
            }))?;
            let text = csv.as_str().context("CSV is text")?;
            read(text, &mut got).with_context(|| format!("{place} {month} by facility"))?;
        }
        for ((facility, form, period), report) in counted {
            let line_form = &catalogue.forms[form.at()];
            let here = line_form.period_type == every
                && month.contains(*period)
                && self.is_in(facility, place, *period);
            if !here {
                continue;
            }
            let asked = self.asked(facility, line_form, *period);
            for ((line, value), asked) in line_form.lines.iter().zip(&report.values).zip(asked) {
                if !asked && *value == Value::Missing {
                    // Another form may ask it; if none does, it is among what is left.
                    continue;
                }
                let element = catalogue.elements[line.element.at()].code.as_str();
                let cell = (facility.to_string(), period.to_string(), element.to_owned());
                let answer = got.remove(&cell);
                proof.cells += 1;
                let same = match (value, &answer) {
                    (Value::Number(n), Some((state, Some(m)))) => state == "reported" && n == m,
                    (Value::NotApplicable, Some((state, None))) => state == "not_applicable",
                    (Value::Missing, None) => true,
                    (Value::Missing, Some((state, None))) => state == "missing",
                    _ => false,
                };
                match value {
                    Value::Number(_) => proof.numbers += 1,
                    Value::NotApplicable => proof.not_applicable += 1,
                    Value::Missing => proof.empty += 1,
                }
                if !same {
                    proof.differs(|| format!("{cell:?}: typed {value:?}, counted {answer:?}"));
                }
            }
        }
        // What is left was typed by nobody. Sums of days over a month are no cells of a monthly form.
        for (cell, (state, value)) in got {
            let asking = self.asking(&cell);
            let wrong = if asking.contains(&every) {
                value.is_some() || state == "not_applicable"
            } else {
                // Whoever is not asked has nothing to apply it to.
                asking.is_empty() && value.is_some()
            };
            let is_cell = asking.contains(&every);
            proof.cells += u64::from(is_cell);
            proof.empty += u64::from(is_cell);
            if wrong {
                proof.differs(|| format!("{cell:?}: typed by nobody, counted {state} {value:?}"));
            }
        }
        Ok(())
    }

    /// Which lines of the form the facility is asked.
    fn asked(&self, facility: &UnitCode, form: &Form, period: Period) -> Vec<bool> {
        let unit = self.organisation.unit(facility.as_str());
        let day = unit.and_then(|unit| self.organisation.duty_day(unit, period));
        let (Some(unit), Some(day)) = (unit, day) else { return vec![true; form.lines.len()] };
        let facts = self.organisation.facts_on(unit, day);
        form.lines.iter().map(|line| line.asks(&facts, day)).collect()
    }

    /// The period types of the forms that ask the element of the facility in that period.
    fn asking(&self, (facility, period, element): &Cell) -> Vec<PeriodType> {
        let (Ok(code), Ok(period)) = (facility.parse::<UnitCode>(), period.parse::<Period>())
        else {
            return Vec::new();
        };
        let (Some(unit), Some(element)) =
            (self.organisation.unit(facility), self.catalogue.element(element))
        else {
            return Vec::new();
        };
        let day = self.organisation.duty_day(unit, period).unwrap_or(period.last_day());
        let kind = self.organisation.kind_on(unit, day);
        let asks = |form: &&Form| {
            form.kinds.contains(&kind)
                && form.line_of(element).is_some_and(|at| self.asked(&code, form, period)[at])
        };
        self.catalogue.forms.iter().filter(asks).map(|form| form.period_type).collect()
    }

    /// Sums of flows over the place, and how many reports were received and are in conflict.
    fn sums(
        &self,
        counted: &BTreeMap<&Key, Counted>,
        place: &str,
        month: Period,
        proof: &mut Proof,
    ) -> Result<()> {
        let answer = self.centre.call(&json!({
            "command": "query", "unit": place, "period": month.to_string(), "format": "json",
        }))?;
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        let mut received: BTreeMap<&str, u64> = BTreeMap::new();
        let mut conflicts = 0;
        for ((facility, form, period), report) in counted {
            if !month.contains(*period) || !self.is_in(facility, place, *period) {
                continue;
            }
            let form = &self.catalogue.forms[form.at()];
            conflicts += u64::from(report.heads > 1);
            *received.entry(form.code.as_str()).or_default() += u64::from(report.is_answer());
            for (line, value) in form.lines.iter().zip(&report.values) {
                let element = &self.catalogue.elements[line.element.at()];
                if let (Value::Number(n), OverTime::Sum, Scope::Facility) =
                    (value, element.over_time, element.scope)
                {
                    *sums.entry(element.code.as_str()).or_default() += n;
                }
            }
        }
        let elements = &answer["rows"][0]["elements"];
        for (element, sum) in sums {
            proof.sums += 1;
            let value = elements[element]["value"].as_u64();
            if value != Some(sum) {
                proof.differs(|| {
                    format!("{place} {month} {element}: typed {sum}, counted {value:?}")
                });
            }
        }
        let by_form = answer["completeness"]["by_form"].as_array().cloned().unwrap_or_default();
        for (form, typed) in received {
            proof.tallies += 1;
            let found = by_form.iter().find(|one| one["form"] == form);
            let value = found.map(|one| one["received"].clone()).unwrap_or(Json::Null);
            if value.as_u64() != Some(typed) {
                proof.differs(|| {
                    format!("{place} {month} {form}: {typed} reports, received {value}")
                });
            }
        }
        proof.tallies += 1;
        proof.conflicts += conflicts;
        if answer["conflicts"].as_u64() != Some(conflicts) {
            let value = answer["conflicts"].clone();
            proof.differs(|| format!("{place} {month}: {conflicts} in conflict, counted {value}"));
        }
        Ok(())
    }
}

/// Reads the cells of a CSV answer that say anything.
fn read(text: &str, into: &mut HashMap<Cell, (String, Option<u64>)>) -> Result<()> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers()?.clone();
    let column = |name: &str| {
        header.iter().position(|h| h == name).with_context(|| format!("no column {name}"))
    };
    let (unit, period, item) = (column("unit")?, column("period")?, column("item")?);
    let (value, state) = (column("value")?, column("state")?);
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record)? {
        let number = match &record[value] {
            "" => None,
            text => Some(text.parse().with_context(|| format!("value {text:?}"))?),
        };
        let cell = (record[unit].to_owned(), record[period].to_owned(), record[item].to_owned());
        into.insert(cell, (record[state].to_owned(), number));
    }
    Ok(())
}
