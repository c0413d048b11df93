//! Who does what when, scenario by scenario.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use banyan_shared::ids::{Millis, UnitCode};
use data_encoding::BASE64;
use serde_json::json;

use super::life::Plan;
use super::options::{Options, Scenario};
use super::random::Random;
use super::world::Made;
use crate::harness::Aggregator;

/// How much of the period a connection lasts at most in churn.
const VANISHES_WITHIN: u32 = 5;
/// Changes of the map over the period of regroup, and clinics moved at each.
const REGROUPINGS: u32 = 3;
const CLINICS_MOVED: usize = 20;

/// What each agent does.
pub(super) fn plans(made: &Made, options: &Options) -> Vec<Plan> {
    let scenario = options.scenario;
    let over = u64::try_from(options.over().as_millis()).unwrap_or(u64::MAX);
    made.agents
        .iter()
        .enumerate()
        .map(|(at, agent)| {
            let live = agent.notebook.len() - made.before[at];
            let mut random = Random::new(options.seed ^ 0x0070_6c61_6e00, at as u64);
            let mut due: Vec<Duration> = match scenario {
                Scenario::Return | Scenario::Rebuild => Vec::new(),
                Scenario::Trickle => vec![Duration::ZERO; made.before[at] as usize],
                _ => (0..live).map(|_| Duration::from_millis(random.below(over))).collect(),
            };
            due.sort_unstable();
            Plan {
                from: Some(made.addresses[at]),
                early: scenario.is_connected_before(),
                due,
                leaves: !scenario.is_connected_before() && !options.stay,
                vanishes: (scenario == Scenario::Churn).then(|| options.over() / VANISHES_WITHIN),
            }
        })
        .collect()
}

/// Moves clinics to their neighbours' villages a few times over the period, until told to stop; gives how
/// often.
///
/// # Errors
/// The aggregator does not take a change.
pub(super) fn regroup(
    centre: &Aggregator,
    made: &Made,
    options: &Options,
    stop: &AtomicBool,
) -> Result<u64> {
    let mut reader = csv::Reader::from_path(&made.units)?;
    let header = reader.headers()?.clone();
    let mut rows: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>()?;
    let now: Millis = jiff::Timestamp::now().into();
    let today = made.catalogue.day_at(now).to_string();
    let mut random = Random::new(options.seed, 0x006d_6f76);
    let homes: Vec<&str> = made.homes.iter().map(UnitCode::as_str).collect();
    let mut moved = std::collections::HashSet::new();
    let mut times = 0;
    for _ in 0..REGROUPINGS {
        for _ in 0..CLINICS_MOVED.min(homes.len() / 4) {
            let mut draw = || homes[random.below(homes.len() as u64) as usize];
            let (one, other) = (draw(), draw());
            let row = |code: &str| rows.iter().position(|row| &row[0] == code);
            let (Some(at), Some(there)) = (row(one), row(other)) else { continue };
            if one == other || !moved.insert(one.to_owned()) {
                continue;
            }
            let parent = rows[there][3].to_owned();
            let with = |row: &csv::StringRecord, at: usize, value: &str| {
                let fields = row.iter().enumerate();
                fields
                    .map(|(field, old)| if field == at { value } else { old })
                    .collect::<csv::StringRecord>()
            };
            let then = with(&with(&rows[at], 3, &parent), 4, &today);
            rows[at] = with(&rows[at], 5, &today);
            rows.insert(at + 1, then);
        }
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(&header)?;
        rows.iter().try_for_each(|row| writer.write_record(row))?;
        let bytes = writer.into_inner().map_err(csv::IntoInnerError::into_error)?;
        centre
            .call(&json!({
                "command": "import_units", "apply": true, "months": [],
                "tables": [{"file": "units.csv", "bytes": BASE64.encode(&bytes)}],
            }))
            .context("regrouping")?;
        times += 1;
        std::thread::park_timeout(options.over() / REGROUPINGS);
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok(times)
}
