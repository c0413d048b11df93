//! What a run begins with: a registry with enough clinics, an aggregator's data directory in which every
//! agent is enrolled, and the agents with their keys, certificates, grants and notebooks.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use banyan_aggregator::identity::{Identity, store_id};
use banyan_aggregator::init::{Sources, init_at};
use banyan_aggregator::ledger::Ledger;
use banyan_aggregator::service::{fold, ledger_dir};
use banyan_aggregator::state::State;
use banyan_shared::catalogue::{Catalogue, FormIx, Lang};
use banyan_shared::ids::{ContextNumber, Millis, UnitCode};
use banyan_shared::keys::{SigningKey, sha256};
use banyan_shared::organisation::{Organisation, UnitIx};
use banyan_shared::period::{Date, Period, PeriodType};
use banyan_shared::sync::Config;
use banyan_shared::wire::{Grant, SignedGrant, StoreId};

use super::agent::{Agent, Centre};
use super::notebook::Notebook;
use super::options::{Options, Scenario};
use super::proof::Area as ProofArea;
use super::random::Random;
use crate::counts::Area;
use crate::province::centre::{Applicant, Centre as History};

const KIND: &str = "village_clinic";
const FORM: &str = "vc_daily";
/// Where `closed`, and behind it `status`, stand in a row of the units.
const CLOSED: usize = 5;
const COUNTY: &str = "county";

/// What was made.
pub(super) struct Made {
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) organisation: Arc<Organisation>,
    pub(super) form: FormIx,
    pub(super) centre: Centre,
    /// The store the agents were enrolled at.
    pub(super) store: StoreId,
    pub(super) agents: Vec<Agent>,
    /// Each agent's facility.
    pub(super) homes: Vec<UnitCode>,
    /// Each agent's network address: a county's share one.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) areas: Vec<ProofArea>,
    /// Entries typed before the measured time, agent by agent.
    pub(super) before: Vec<u64>,
    /// Entries typed in all.
    pub(super) reports: u64,
    /// The registry's units as given, for changes of it.
    pub(super) units: PathBuf,
}

fn seeds() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds")
}

/// The units of Guizhou, and as many more clinics in its villages as are needed to have `clinics`.
fn write_units(path: &Path, clinics: usize) -> Result<()> {
    let given = seeds().join("guizhou/units.csv");
    let mut reader =
        csv::Reader::from_path(&given).with_context(|| format!("reading {}", given.display()))?;
    let mut writer = csv::Writer::from_path(path)?;
    writer.write_record(reader.headers()?)?;
    let mut rows = Vec::new();
    for row in reader.records() {
        let row = row?;
        writer.write_record(&row)?;
        // Closed ones, and those only planned, are nobody's home.
        let is_open = |field: usize| row.get(field).is_none_or(str::is_empty);
        if &row[2] == KIND && (CLOSED..).take(2).all(is_open) {
            rows.push(row);
        }
    }
    let mut missing = clinics.saturating_sub(rows.len());
    for copy in 2.. {
        for row in rows.iter().take(missing) {
            let mut more = row.clone();
            more.clear();
            for (at, field) in row.iter().enumerate() {
                match at {
                    0 => more.push_field(&format!("{field}{copy}")),
                    1 => more.push_field(&format!("{field}（{copy}）")),
                    _ => more.push_field(field),
                }
            }
            writer.write_record(&more)?;
        }
        missing = missing.saturating_sub(rows.len());
        if missing == 0 {
            break;
        }
    }
    Ok(writer.flush()?)
}

fn sources(units: &Path) -> Sources {
    let guizhou = |name: &'static str| (name, seeds().join("guizhou").join(name));
    let mut tables: Vec<(&'static str, PathBuf)> = [
        "attributes.csv",
        "networks.csv",
        "members.csv",
        "duties.csv",
        "calendar.csv",
        "codes.csv",
        "contacts.csv",
    ]
    .map(guizhou)
    .to_vec();
    tables.push(("units.csv", units.to_owned()));
    tables.push(("targets.csv", seeds().join("targets.csv")));
    Sources { catalogue: Some(seeds().join("catalogue.toml")), tables }
}

/// The clinics an agent each is put at: county by county, in the registry's order.
fn homes(
    catalogue: &Catalogue,
    organisation: &Organisation,
    day: Date,
    n: usize,
) -> Result<Vec<UnitIx>> {
    let kind = catalogue.kind(KIND).context("the catalogue has village clinics")?;
    let clinics = organisation.reporters().iter().copied();
    let homes: Vec<UnitIx> = clinics
        .filter(|unit| organisation.is_open(*unit, day) && organisation.kind_on(*unit, day) == kind)
        .take(n)
        .collect();
    if homes.len() < n {
        bail!("the registry has {} clinics, not {n}", homes.len());
    }
    Ok(homes)
}

/// Makes everything in `dir`, in which nothing is yet. `said` is told what is being done.
///
/// # Errors
/// What the disk says.
pub(super) fn make(dir: &Path, options: &Options, said: impl Fn(&str)) -> Result<Made> {
    let now: Millis = jiff::Timestamp::now().into();
    let n = usize::try_from(options.agents)?;
    let centre_dir = dir.join("centre");
    std::fs::create_dir_all(&centre_dir)?;
    let units = dir.join("units.csv");
    write_units(&units, n)?;
    let age_ms = i64::from(options.days() + 40) * 86_400_000;
    let founded = now.plus(-age_ms);
    said("making the data directory");
    init_at(&centre_dir, &sources(&units), "贵州省（模拟）", Lang::Zh, founded)?;
    let identity = Identity::open(&centre_dir)?;
    let ledger = Ledger::open(&ledger_dir(&centre_dir))?;
    let store = store_id(&ledger.identity());
    let state = fold(&ledger.reader()?, founded)?;
    let (catalogue, organisation) = (state.catalogue.clone(), state.organisation.clone());
    let today = catalogue.day_at(now);
    let homes = homes(&catalogue, &organisation, today, n)?;
    said("making keys and enrolling");
    let keys: Vec<SigningKey> = homes
        .iter()
        .map(|home| {
            let code = organisation.code(*home).as_str().as_bytes();
            let seed = sha256(&[b"fleet", &options.seed.to_le_bytes(), code]);
            SigningKey::from_seed(&seed).map_err(|error| anyhow!("{error}"))
        })
        .collect::<Result<_>>()?;
    let mut history = History::new(state, identity, ledger);
    let applicants: Vec<Applicant> = homes
        .iter()
        .zip(&keys)
        .map(|(home, key)| Applicant::alone(organisation.code(*home).clone(), key))
        .collect();
    let enrolled = history.enrol(&applicants, options.seed, founded.plus(86_400_000))?;
    let (state, _) = history.close(now)?;
    let identity = Identity::open(&centre_dir)?;
    let centre = Centre {
        key: identity.key.public(),
        root: identity.root.fingerprint(),
        newest: identity.certificate.rank(),
    };
    said("typing");
    let form = FormIx(
        (0u16..)
            .zip(&catalogue.forms)
            .find_map(|(at, form)| (form.code.as_str() == FORM).then_some(at))
            .context("the catalogue has the clinics' daily form")?,
    );
    let first = today.plus(-i32::try_from(options.days())?);
    let last = today.plus(-1);
    let month = |day: Date| Period::containing(PeriodType::Month, day);
    let months = (0..).map(|n| month(first).plus(n)).take_while(|m| *m <= month(last)).collect();
    let area =
        Area { catalogue: &catalogue, organisation: &organisation, months, seed: options.seed };
    let notebooks = notebooks(&area, form, &homes, (first, last), options);
    let config = config(options);
    let mut agents = Vec::with_capacity(n);
    let mut before = Vec::with_capacity(n);
    let contexts = enrolled.iter().map(|(context, _)| *context);
    for ((key, context), (notebook, old)) in keys.into_iter().zip(contexts).zip(notebooks) {
        let certificate = identity.ca.certify(&key.public(), now)?.certificate;
        let grant = grant(&state, &identity, &key, context)?;
        let grant = (context, grant);
        agents.push(Agent::new(key, certificate, grant, notebook, centre, config));
        before.push(old);
    }
    let reports = agents.iter().zip(&before).map(|(agent, before)| {
        // Live scenarios send what came before early.
        agent.notebook.len() - if options.scenario.is_live() { *before } else { 0 }
    });
    let reports = reports.sum();
    let (areas, addresses) = areas(&catalogue, &organisation, today, &homes)?;
    Ok(Made {
        catalogue,
        form,
        centre,
        store,
        agents,
        homes: homes.iter().map(|home| organisation.code(*home).clone()).collect(),
        organisation,
        addresses,
        areas,
        before,
        reports,
        units,
    })
}

/// How the agents send.
pub(super) fn config(options: &Options) -> Config {
    let usual = Config::default();
    Config { batch_entries: options.batch_entries().unwrap_or(usual.batch_entries), ..usual }
}

fn grant(
    state: &State,
    identity: &Identity,
    key: &SigningKey,
    context: ContextNumber,
) -> Result<SignedGrant> {
    let agent = state.agents.get(&key.public().agent_id()).context("the agent is enrolled")?;
    let offer = state.offer(context).context("the agent has its context")?;
    let grant =
        Grant { key: agent.key, offer, issued_at: agent.admitted_at, succeeds: agent.succeeds };
    Ok(SignedGrant::sign(&grant, &identity.key, &identity.certificate))
}

/// What is typed at each, and how much of it before the measured time.
fn notebooks(
    area: &Area<'_>,
    form: FormIx,
    homes: &[UnitIx],
    (first, last): (Date, Date),
    options: &Options,
) -> Vec<(Notebook, u64)> {
    let days: Vec<(Date, bool)> = (first.days()..=last.days())
        .filter_map(Date::from_days)
        .map(|day| (day, area.holiday(day)))
        .collect();
    let model = &area.catalogue.forms[form.at()];
    let draw = |home: UnitIx| {
        let facts = area.organisation.facts_on(home, last);
        let days = days.iter().copied();
        let mut notebook = Notebook::draw(area, (form, model), home, &facts, days);
        let typed = notebook.len();
        let live = options.scenario.is_live();
        let corrections = match options.scenario {
            Scenario::Corrections => typed,
            Scenario::Soak => typed / 2,
            _ => return (notebook, if live { 0 } else { typed }),
        };
        let code = area.organisation.code(home).as_str();
        let index = code.bytes().fold(7u64, |sum, b| sum.wrapping_mul(131) + u64::from(b));
        let mut random = Random::new(options.seed, index);
        // Some days get several corrections, some none.
        for _ in 0..corrections {
            let at = random.below(typed);
            notebook.correct(usize::try_from(at).unwrap_or(0));
        }
        (notebook, if options.scenario == Scenario::Soak { 0 } else { typed })
    };
    let draw = &draw;
    let half = homes.len() / 2;
    std::thread::scope(|scope| {
        let second =
            scope.spawn(move || homes[half..].iter().map(|h| draw(*h)).collect::<Vec<_>>());
        let mut all: Vec<_> = homes[..half].iter().map(|home| draw(*home)).collect();
        match second.join() {
            Ok(rest) => all.extend(rest),
            Err(panic) => std::panic::resume_unwind(panic),
        }
        all
    })
}

/// Agents by county; a county's agents come from one address of their own.
fn areas(
    catalogue: &Catalogue,
    organisation: &Organisation,
    day: Date,
    homes: &[UnitIx],
) -> Result<(Vec<ProofArea>, Vec<IpAddr>)> {
    let county = catalogue.kind(COUNTY).context("the catalogue has counties")?;
    let mut by_county: BTreeMap<UnitCode, Vec<usize>> = BTreeMap::new();
    for (at, home) in homes.iter().enumerate() {
        let unit = organisation.ancestor_of_kind(*home, county, day);
        let unit = unit.with_context(|| format!("{} is in a county", organisation.code(*home)))?;
        by_county.entry(organisation.code(unit).clone()).or_default().push(at);
    }
    let mut addresses = vec![IpAddr::from([127, 0, 0, 1]); homes.len()];
    for (agents, number) in by_county.values().zip(1u8..) {
        for at in agents {
            // All of 127.0.0.0/8 is this machine.
            addresses[*at] = IpAddr::from([127, 52, number, 1]);
        }
    }
    let areas = by_county.into_iter().map(|(code, agents)| ProofArea { code, agents }).collect();
    Ok((areas, addresses))
}
