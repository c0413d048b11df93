//! The registry: that of Guizhou, or several of it under other codes beside each other; and what changes on the map
//! meanwhile: every quarter some clinics close and some move to another township.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result, bail};
use banyan_aggregator::act::TableFile;
use banyan_aggregator::init::Sources;
use banyan_aggregator::state::{State, TABLE_BYTES_MAX};
use banyan_shared::ids::UnitCode;
use banyan_shared::organisation::UnitIx;
use banyan_shared::period::Date;
use banyan_shared::tables::TableName;
use banyan_shared::wire::{deflate, inflate};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::Options;

/// Months between changes.
const EVERY_MONTHS: usize = 3;
/// One clinic in so many closes at a change, and as many move.
const CLINICS_A_CHANGE: usize = 1_500;

/// What the codes of Guizhou begin with.
const GUIZHOU: &str = "52";
/// What those of the provinces beside it begin with, the first of them.
const BESIDE: u32 = 60;
/// Two digits are a province's.
const TIMES_MAX: u32 = 100 - BESIDE + 1;

/// The tables of `times` provinces in `dir`; for one, those the aggregator brings.
pub(super) fn sources(times: u32, dir: &Path) -> Result<Sources> {
    let mut sources = Sources { catalogue: None, tables: Vec::new() };
    if times == 1 {
        return Ok(sources);
    }
    if !(1..=TIMES_MAX).contains(&times) {
        bail!("{times} provinces: make between 1 and {TIMES_MAX}");
    }
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds/guizhou");
    for name in TableName::ALL.map(TableName::file_name) {
        let given = seeds.join(name);
        if !given.is_file() {
            continue;
        }
        let mut reader = csv::Reader::from_path(&given)?;
        let rows = reader.records().collect::<Result<Vec<_>, _>>()?;
        let path = dir.join(name);
        let mut writer = csv::Writer::from_path(&path)?;
        writer.write_record(reader.headers()?)?;
        for n in 0..times {
            for row in &rows {
                let fields: Vec<String> = row.iter().map(|field| of_province(field, n)).collect();
                // Hospitals outside the province are the same for all.
                if n == 0 || row.get(0) != fields.first().map(String::as_str) {
                    writer.write_record(&fields)?;
                }
            }
        }
        writer.flush()?;
        sources.tables.push((name, path));
    }
    Ok(sources)
}

/// A field as it is in the `n`-th province: codes begin with the province's number, those of networks with the
/// kind's letters before it.
fn of_province(field: &str, n: u32) -> String {
    let letters = field.find('-').filter(|at| field[..*at].chars().all(|c| c.is_ascii_uppercase()));
    let (kind, rest) = field.split_at(letters.map_or(0, |at| at + 1));
    match rest.strip_prefix(GUIZHOU).filter(|_| n > 0) {
        Some(rest) => format!("{kind}{}{rest}", BESIDE + n - 1),
        None => field.to_owned(),
    }
}

/// The units as they are from a day on.
pub(super) struct Change {
    pub(super) on: Date,
    pub(super) file: TableFile,
}

/// Rows of `units.csv`, by the header of the seeds.
const CODE: usize = 0;
const PARENT: usize = 3;
const OPENED: usize = 4;
const CLOSED: usize = 5;
const SUCCEEDED_BY: usize = 7;

/// The changes in order of time; each file holds those before it too.
pub(super) fn changes(state: &State, options: &Options) -> Result<Vec<Change>> {
    let given = state.tables.get(&TableName::Units).context("the registry has units")?;
    let text = inflate(&given.bytes, TABLE_BYTES_MAX)?;
    let mut reader = csv::Reader::from_reader(&*text);
    let header = reader.headers()?.clone();
    let mut rows: Vec<Vec<String>> = Vec::new();
    for record in reader.records() {
        rows.push(record?.iter().map(str::to_owned).collect());
    }
    let mut random = StdRng::seed_from_u64(options.seed ^ 0x006d_6170);
    let counties = clinics(state, options);
    let all: usize = counties.iter().map(Vec::len).sum();
    let mut changed: HashSet<UnitCode> = HashSet::new();
    let mut changes = Vec::new();
    for month in options.all_months().into_iter().skip(EVERY_MONTHS).step_by(EVERY_MONTHS) {
        let on = month.first_day();
        for closes in (0..2 * all.div_ceil(CLINICS_A_CHANGE)).map(|n| n % 2 == 0) {
            let county = &counties[random.random_range(0..counties.len())];
            let draw = |random: &mut StdRng| county[random.random_range(0..county.len())];
            let (one, other) = (draw(&mut random), draw(&mut random));
            let code = |unit: UnitIx| state.organisation.code(unit).clone();
            if one == other || changed.contains(&code(one)) || changed.contains(&code(other)) {
                continue;
            }
            let at = rows.iter().position(|row| row[CODE] == code(one).as_str());
            let at = at.context("a clinic has its row")?;
            rows[at][CLOSED] = on.to_string();
            if closes {
                rows[at][SUCCEEDED_BY] = code(other).to_string();
            } else {
                let parent =
                    state.organisation.parent_on(other, on).context("a clinic lies somewhere")?;
                let mut moved = rows[at].clone();
                moved[OPENED] = on.to_string();
                moved[CLOSED] = String::new();
                moved[PARENT] = code(parent).to_string();
                rows.insert(at + 1, moved);
            }
            changed.extend([code(one), code(other)]);
        }
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(&header)?;
        rows.iter().try_for_each(|row| writer.write_record(row))?;
        let bytes = deflate(&writer.into_inner().map_err(|error| error.into_error())?);
        let file = TableFile { table: TableName::Units, file: given.file.clone(), bytes };
        changes.push(Change { on, file });
    }
    Ok(changes)
}

/// The village clinics with one row each, by county.
fn clinics(state: &State, options: &Options) -> Vec<Vec<UnitIx>> {
    let (organisation, catalogue) = (&state.organisation, &state.catalogue);
    let day = options.from.first_day();
    let (county, clinic) = (catalogue.kind("county"), catalogue.kind("village_clinic"));
    let within: Vec<UnitIx> =
        options.below.iter().filter_map(|text| organisation.unit(text)).collect();
    let mut counties: Vec<(Option<UnitIx>, Vec<UnitIx>)> = Vec::new();
    for unit in organisation.reporters().iter().copied() {
        let here =
            within.is_empty() || within.iter().any(|area| organisation.is_below(unit, *area, day));
        let plain = organisation.info(unit).spells.len() == 1
            && organisation.info(unit).spells[0].to.is_none()
            && Some(organisation.kind_on(unit, day)) == clinic;
        if !here || !plain {
            continue;
        }
        let above = county.and_then(|county| organisation.ancestor_of_kind(unit, county, day));
        match counties.last_mut() {
            Some((last, units)) if *last == above => units.push(unit),
            _ => counties.push((above, vec![unit])),
        }
    }
    counties.into_iter().map(|(_, units)| units).filter(|units| units.len() > 1).collect()
}
