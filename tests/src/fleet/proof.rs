//! Typed = receipted = in the ledger = counted: entry by entry, cell by cell. And how soon it can be seen.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use banyan_aggregator::ledger::{LedgerError, LedgerReader, RowKind};
use banyan_aggregator::service::ledger_dir;
use banyan_shared::catalogue::{Catalogue, FormIx};
use banyan_shared::ids::{AgentId, Millis, UnitCode};
use banyan_shared::period::{Date, Period, PeriodType};
use banyan_shared::wire::{Batch, Envelope};
use serde::Serialize;
use serde_json::json;

use super::agent::Agent;
use super::measure::Percentiles;
use super::notebook::Notebook;
use crate::harness::Aggregator;

/// Most differences shown.
const DIFFERENCES_MAX: usize = 20;
/// Pause between two looks: looking must not be what keeps the aggregator busy.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long something accepted may stay invisible before it is given up.
const VISIBLE_WITHIN: Duration = Duration::from_secs(10);

/// Something just receipted, to be looked for.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    pub(super) facility: UnitCode,
    pub(super) day: Option<Date>,
    /// When the centre says it was on disk.
    pub(super) accepted_at: Millis,
}

/// What was compared, and what differs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Conservation {
    /// Entries typed.
    pub typed: u64,
    /// Of them: proved to be in the ledger by a receipt.
    pub receipted: u64,
    /// Of them: in the ledger, with the very content.
    pub in_ledger: u64,
    /// Entries in the ledger that nobody typed, or that say something else.
    pub foreign: u64,
    /// Entries that came into the ledger's bytes more than once (they are folded in once).
    pub stored_again: u64,
    /// Cells asked for: facility × element × day.
    pub cells: u64,
    /// Of them: with a number, equal to the newest one typed.
    pub numbers: u64,
    /// Numbers typed that no answer shows.
    pub lost: u64,
    /// Cells that count more than one report.
    pub twice: u64,
    /// Cells that show another number than was typed, or one where none was.
    pub different: u64,
    /// Batches or entries the agents did not expect to be refused, parked or moved.
    pub unexpected: u64,
    /// The first differences.
    pub differences: Vec<String>,
}

impl Conservation {
    /// Whether everything typed is there once.
    pub fn holds(&self) -> bool {
        self.holds_so_far() && self.in_ledger == self.typed
    }

    /// Whether nothing wrong has been seen, the ledger left out.
    pub(super) fn holds_so_far(&self) -> bool {
        let wrong = [self.foreign, self.lost, self.twice, self.different, self.unexpected];
        self.receipted == self.typed && wrong == [0; 5]
    }

    fn differs(&mut self, text: impl FnOnce() -> String) {
        if self.differences.len() < DIFFERENCES_MAX {
            self.differences.push(text());
        }
    }

    /// What the agents know.
    pub(super) fn of_agents(agents: &[Agent]) -> Conservation {
        let mut sum = Conservation::default();
        for agent in agents {
            let tally = &agent.tally;
            sum.typed += agent.written();
            sum.receipted += agent.written().saturating_sub(agent.waiting());
            sum.unexpected += tally.refused + tally.parked + tally.faults + tally.bad_messages;
        }
        sum
    }

    /// Holds every entry of the ledger of a stopped aggregator against what was typed.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub(super) fn ledger(&mut self, centre: &Path, agents: &[Agent]) -> Result<()> {
        let by_id: HashMap<AgentId, usize> =
            agents.iter().zip(0..).map(|(agent, at)| (agent.id, at)).collect();
        let mut held: Vec<Vec<bool>> = agents
            .iter()
            .map(|agent| vec![false; usize::try_from(agent.notebook.len()).unwrap_or(0)])
            .collect();
        let reader = LedgerReader::open(&ledger_dir(centre))?;
        reader.read_from::<LedgerError>(1, |row| {
            if row.kind != RowKind::Batch {
                return Ok(());
            }
            let batch = Envelope::read(row.bytes).and_then(|envelope| Batch::read(&envelope));
            let Ok(batch) = batch else {
                self.foreign += 1;
                self.differs(|| format!("ledger position {}: no batch", row.position));
                return Ok(());
            };
            let Some(&at) = by_id.get(&batch.agent) else {
                self.foreign += batch.entries.len() as u64;
                return Ok(());
            };
            let agent = &agents[at];
            for entry in batch.entries {
                let place = usize::try_from(entry.seq).unwrap_or(usize::MAX).wrapping_sub(1);
                let same = batch.epoch == agent.epoch
                    && agent.notebook.body(entry.seq).as_ref() == Some(&entry.body);
                match held[at].get_mut(place) {
                    Some(held) if same => {
                        self.stored_again += u64::from(*held);
                        self.in_ledger += u64::from(!*held);
                        *held = true;
                    }
                    _ => {
                        self.foreign += 1;
                        self.differs(|| {
                            format!(
                                "ledger position {}: {} {}",
                                row.position, batch.agent, entry.seq
                            )
                        });
                    }
                }
            }
            Ok(())
        })?;
        Ok(())
    }
}

/// An area's agents, whose answers are compared together.
#[derive(Clone, Debug)]
pub(super) struct Area {
    /// The county.
    pub(super) code: UnitCode,
    /// Its agents, by their places.
    pub(super) agents: Vec<usize>,
}

/// Holds what the query API shows against what was typed, every cell of every agent, in the months from that of
/// `from` on if it is given; `seen` is told how many cells were compared.
///
/// # Errors
/// The aggregator cannot be asked.
pub(super) fn compare(
    centre: &Aggregator,
    (catalogue, form): (&Catalogue, FormIx),
    (areas, from): (&[Area], Option<Date>),
    agents: &[Agent],
    proof: &mut Conservation,
    seen: impl Fn(u64) + Sync,
) -> Result<()> {
    let elements: Vec<&str> = catalogue.forms[form.at()]
        .lines
        .iter()
        .map(|line| catalogue.elements[line.element.at()].code.as_str())
        .collect();
    // Two at a time: the aggregator has another core for the second.
    let parts = std::thread::scope(|scope| -> Result<Vec<Conservation>> {
        let (elements, seen) = (&elements, &seen);
        let halves: Vec<_> = (0..2)
            .map(|half| {
                scope.spawn(move || -> Result<Conservation> {
                    let mut part = Conservation::default();
                    for area in areas.iter().skip(half).step_by(2) {
                        compare_area(centre, elements, (area, from), agents, &mut part)?;
                        seen(part.cells);
                    }
                    Ok(part)
                })
            })
            .collect();
        halves
            .into_iter()
            .map(|half| half.join().unwrap_or_else(|_| bail!("comparing panicked")))
            .collect()
    })?;
    for part in parts {
        proof.cells += part.cells;
        proof.numbers += part.numbers;
        proof.lost += part.lost;
        proof.twice += part.twice;
        proof.different += part.different;
        part.differences.into_iter().for_each(|text| proof.differs(|| text));
    }
    Ok(())
}

/// What must be shown of a facility: by day.
type Expected<'a> = BTreeMap<i32, &'a [u16]>;

fn compare_area(
    centre: &Aggregator,
    elements: &[&str],
    (area, from): (&Area, Option<Date>),
    agents: &[Agent],
    proof: &mut Conservation,
) -> Result<()> {
    let expected: HashMap<&str, Expected<'_>> = area
        .agents
        .iter()
        .map(|at| &agents[*at])
        .map(|agent| (agent.notebook.home.as_str(), agent.notebook.newest(agent.written())))
        .collect();
    let days = expected.values().flat_map(|days| days.keys());
    let months: BTreeSet<Period> = days
        .filter_map(|day| Some(Period::containing(PeriodType::Month, Date::from_days(*day)?)))
        .filter(|month| from.is_none_or(|from| from <= month.last_day()))
        .collect();
    for month in months {
        let csv = centre.call(&json!({
            "command": "query", "unit": area.code.as_str(), "period": month.to_string(),
            "by": ["facility", "day"], "element": elements, "format": "csv",
        }))?;
        let text = csv.as_str().context("CSV is text")?;
        let mut wanted = 0;
        for days in expected.values() {
            let (first, last) = (month.first_day().days(), month.last_day().days());
            let cells = days.range(first..=last).flat_map(|(_, cells)| *cells);
            wanted += cells.filter(|cell| Notebook::number(**cell).is_some()).count() as u64;
        }
        let before = proof.numbers + proof.different;
        read(text, elements, &expected, proof)
            .with_context(|| format!("{} {month} by facility and day", area.code))?;
        let shown = proof.numbers + proof.different - before;
        if shown < wanted {
            proof.lost += wanted - shown;
            proof.differs(|| format!("{} {month}: {shown} numbers of {wanted}", area.code));
        }
    }
    Ok(())
}

fn read(
    text: &str,
    elements: &[&str],
    expected: &HashMap<&str, Expected<'_>>,
    proof: &mut Conservation,
) -> Result<()> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers()?.clone();
    let column = |name: &str| {
        header.iter().position(|h| h == name).with_context(|| format!("no column {name}"))
    };
    let (unit, period, item) = (column("unit")?, column("period")?, column("item")?);
    let (value, reports) = (column("value")?, column("reports")?);
    let mut record = csv::StringRecord::new();
    let mut day: (String, i32) = (String::new(), 0);
    while reader.read_record(&mut record)? {
        proof.cells += 1;
        let Some(line) = elements.iter().position(|element| *element == &record[item]) else {
            continue;
        };
        if day.0 != record[period] {
            let read: Period = record[period]
                .parse()
                .map_err(|_| anyhow::anyhow!("{:?} is no period", &record[period]))?;
            day = (record[period].to_owned(), read.first_day().days());
        }
        let typed = expected
            .get(&record[unit])
            .and_then(|days| days.get(&day.1))
            .and_then(|cells| Notebook::number(*cells.get(line)?));
        let counted: Option<u64> = match &record[value] {
            "" => None,
            text => Some(text.parse().with_context(|| format!("value {text:?}"))?),
        };
        match (typed, counted) {
            (Some(typed), Some(counted)) if typed == counted => {
                proof.numbers += 1;
                if &record[reports] != "1" {
                    proof.twice += 1;
                    proof.differs(|| format!("{record:?}: not one report"));
                }
            }
            (None, None) => {}
            (typed, counted) => {
                // One not shown at all is lost, which the sum over the month tells.
                if counted.is_some() {
                    proof.different += 1;
                }
                proof.differs(|| {
                    let (unit, period) = (&record[unit], &record[period]);
                    format!(
                        "{unit} {period} {}: typed {typed:?}, counted {counted:?}",
                        &record[item]
                    )
                });
            }
        }
    }
    Ok(())
}

/// Looks for what was receipted until the query API shows it; gives how long after being on disk that was,
/// and how many were never seen.
///
/// # Errors
/// The aggregator cannot be asked.
pub(super) fn look(
    centre: &Aggregator,
    element: &str,
    probes: &Receiver<Probe>,
) -> Result<(Percentiles, u64)> {
    let (mut latencies, mut unseen) = (Vec::new(), 0);
    for probe in probes {
        let Some(day) = probe.day else { continue };
        let begun = Instant::now();
        let question = json!({
            "command": "query", "unit": probe.facility.as_str(), "period": Period::day(day).to_string(),
            "element": [element], "format": "json",
        });
        loop {
            let answer = centre.call(&question)?;
            let now: Millis = jiff::Timestamp::now().into();
            if answer["rows"][0]["elements"][element]["state"] == "reported" {
                let ms = u32::try_from(now.0 - probe.accepted_at.0).unwrap_or(0);
                latencies.push((ms.saturating_mul(1000), 1));
                break;
            }
            if begun.elapsed() > VISIBLE_WITHIN {
                unseen += 1;
                break;
            }
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
    Ok((Percentiles::of(latencies), unseen))
}
