//! A province-year in a real data directory: the registry of Guizhou, real keys, signed batches, the real ledger.
//!
//! Everything takes the way it takes in service, but for the line: an agent's entries are packed and signed
//! as agents do it, judged and folded in by [`State`], committed by [`Ledger`] at the moment a simulated clock
//! shows. Counts, gaps and delays are drawn from a seed: the same options give the same reports on the same
//! days; keys and store are new each time. Clinics forget days, fall silent for weeks, correct and withdraw;
//! some are reported for by their township, a few by both; some close, move to another township or are never
//! enrolled. What is left out: operators' acts beside registry and enrolment.

pub(crate) mod centre;
mod desk;
mod registry;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use banyan_aggregator::act::Act;
use banyan_aggregator::identity::Identity;
use banyan_aggregator::init::init_at;
use banyan_aggregator::ledger::Ledger;
use banyan_aggregator::service::{fold, ledger_dir};
use banyan_aggregator::state::{State, build_organisation};
use banyan_shared::catalogue::{Catalogue, FormIx, Lang};
use banyan_shared::ids::Millis;
use banyan_shared::keys::sha256;
use banyan_shared::organisation::{Organisation, UnitIx};
use banyan_shared::period::{Date, Period, PeriodType};
use banyan_shared::wire::{decode, encode};
use serde::{Deserialize, Serialize};

use crate::counts::Area;
use crate::harness::profile_dir;
use centre::{Applicant, Centre};
use desk::{Desk, Sent, Township};

/// Raised whenever the same options come to give other reports: a directory made before is made anew.
const FORMAT: u32 = 1;
/// Days after the last month until the last forms are in.
const TAIL_DAYS: i32 = 20;
/// The file of a fixture with what would be sent next.
const NEXT: &str = "next.batches";
/// Days worked out ahead of the fold.
const DAYS_AHEAD: usize = 2;
/// When agents send, in minutes of the day, with weights: most before the daily forms are due at 10:00.
const SENDING: [(u16, u32); 5] = [(500, 55), (560, 30), (660, 5), (870, 5), (1_020, 5)];
/// Which share of townships does not report for its villages, in percent.
const NO_PROXY_PERCENT: u32 = 5;

/// What to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// The first month.
    pub from: Period,
    /// How many months.
    pub months: u32,
    /// What the counts start from.
    pub seed: u64,
    /// Only what is below these units; none: everything.
    pub below: Vec<String>,
    /// Every how many days a clinic with an agent of its own sends what it has; townships send daily.
    pub every: u32,
    /// Which share of the village clinics has an agent of its own, in percent.
    pub own_percent: u32,
    /// How many provinces like this one stand beside each other in the registry.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub times: u32,
}

const fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde hands over")]
const fn is_one(times: &u32) -> bool {
    *times == 1
}

impl Options {
    /// The last twelve months whose forms are all in on `today`, of the whole province.
    pub fn before(today: Date) -> Options {
        let month = Period::containing(PeriodType::Month, today.plus(-TAIL_DAYS - 1));
        Options {
            from: month.plus(-12),
            months: 12,
            seed: 20_260_101,
            below: Vec::new(),
            every: 4,
            own_percent: 55,
            times: one(),
        }
    }

    /// The months.
    pub fn all_months(&self) -> Vec<Period> {
        (0..self.months).filter_map(|n| Some(self.from.plus(i32::try_from(n).ok()?))).collect()
    }

    fn last_day(&self) -> Date {
        self.all_months().last().map_or(Date::MIN, |month| month.last_day())
    }

    /// The day after the last on which anything is received.
    pub fn end(&self) -> Date {
        self.last_day().plus(TAIL_DAYS + 1)
    }

    /// A name for a directory: the same for the same content.
    ///
    /// # Errors
    /// The seeds cannot be read.
    pub fn key(&self) -> Result<String> {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds");
        let mut bytes = Vec::new();
        for file in
            ["catalogue.toml", "guizhou/units.csv", "guizhou/members.csv", "guizhou/networks.csv"]
        {
            let path = seeds.join(file);
            bytes.extend(std::fs::read(&path).with_context(|| path.display().to_string())?);
        }
        let digest = sha256(&[&FORMAT.to_le_bytes(), &serde_json::to_vec(self)?, &bytes]);
        Ok(format!(
            "{}-{}-{}",
            self.from,
            self.months,
            data_encoding::HEXLOWER.encode(&digest[..6])
        ))
    }
}

/// What was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Facilities and desks in the registry, of those asked for.
    pub sites: u64,
    /// Agents enrolled.
    pub agents: u64,
    /// Reports, each once.
    pub reports: u64,
    /// Versions of them.
    pub versions: u64,
    /// Numbers in the versions.
    pub counts: u64,
    /// Signed batches.
    pub batches: u64,
    /// Their bytes.
    pub batch_bytes: u64,
    /// Acts.
    pub acts: u64,
    /// Versions not counted for now.
    pub parked: u64,
    /// Bytes of the ledger's database.
    pub ledger_bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

/// A directory made, in memory.
pub struct Made {
    /// What is counted in it.
    pub state: State,
    /// In numbers.
    pub summary: Summary,
    /// The signed batches agents would send next, not in the ledger: for whoever wants to keep it busy.
    pub next: Vec<Vec<u8>>,
}

/// A directory kept from run to run.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// The folder with all of it.
    pub dir: PathBuf,
    /// In numbers.
    pub summary: Summary,
}

impl Fixture {
    /// The aggregator's data directory: not to be changed, for the next run's sake.
    pub fn centre(&self) -> PathBuf {
        self.dir.join("centre")
    }

    /// See [`Made::next`].
    ///
    /// # Errors
    /// What the disk says.
    pub fn next(&self) -> Result<Vec<Vec<u8>>> {
        let path = self.dir.join(NEXT);
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        Ok(decode(&bytes)?)
    }
}

/// How far it is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Days done, and of how many.
    pub days: (u32, u32),
    /// Versions committed.
    pub versions: u64,
}

/// Everything that holds for the whole time.
pub(crate) struct Year<'a> {
    pub(crate) options: &'a Options,
    pub(crate) area: Area<'a>,
    pub(crate) holidays: HashSet<Date>,
    /// By kind, the forms of days, months and years.
    pub(crate) forms: Vec<[Vec<FormIx>; 3]>,
}

impl Year<'_> {
    pub(crate) fn catalogue(&self) -> &Catalogue {
        self.area.catalogue
    }

    pub(crate) fn organisation(&self) -> &Organisation {
        self.area.organisation
    }

    fn first_day(&self) -> Date {
        self.options.from.first_day()
    }
}

/// Makes the data directory `dir`, which must not exist or be empty.
///
/// # Errors
/// What the disk says, or that a batch was not judged as it must be.
pub fn generate(dir: &Path, options: &Options, mut seen: impl FnMut(Progress)) -> Result<Made> {
    let begun = Instant::now();
    let first = options.from.first_day();
    let tables = tempfile::tempdir()?;
    let sources = registry::sources(options.times, tables.path())?;
    let founded = Millis(i64::from(first.days() - 31) * 86_400_000);
    init_at(dir, &sources, "贵州省（模拟）", Lang::Zh, founded)?;
    let identity = Identity::open(dir)?;
    let ledger = Ledger::open(&ledger_dir(dir))?;
    let state = fold(&ledger.reader()?, founded)?;
    let catalogue = state.catalogue.clone();
    let changes = registry::changes(&state, options)?;
    let organisation = match changes.last() {
        None => state.organisation.clone(),
        Some(last) => {
            let mut tables = state.tables.clone();
            tables.insert(last.file.table, Arc::new(last.file.clone()));
            Arc::new(build_organisation(&catalogue, &tables, &[]).map_err(|errors| {
                let text: Vec<String> = errors.iter().map(|error| error.text(Lang::En)).collect();
                anyhow!("the changed registry: {}", text.join("; "))
            })?)
        }
    };
    let year = year(options, &catalogue, &organisation);
    let mut centre = Centre::new(state, identity, ledger);
    let mut townships = plan(&year)?;
    let enrolled = catalogue.midnight(first.plus(-1));
    enrol(&mut centre, &mut townships, options.seed, enrolled)?;
    let mut summary = Summary {
        sites: townships.iter().map(|township| u64::from(township.sites)).sum(),
        agents: townships.iter().map(|township| township.desks.len() as u64).sum(),
        ..Summary::default()
    };
    let end = options.end();
    let days = u32::try_from(end.days() - first.days()).unwrap_or(0);
    let mut changes = changes.into_iter().peekable();
    let next = std::thread::scope(|scope| -> Result<Vec<Vec<u8>>> {
        let lines: Vec<Receiver<Vec<Sent>>> = shares(townships)
            .into_iter()
            .map(|mut share| {
                let (line, other) = sync_channel(DAYS_AHEAD);
                let year = &year;
                scope.spawn(move || work(year, &mut share, end, &line));
                other
            })
            .collect();
        let receive = || -> Result<Vec<Sent>> {
            let mut sent = Vec::new();
            for line in &lines {
                sent.extend(line.recv().context("a worker stopped early")?);
            }
            Ok(sent)
        };
        for (at, date) in (1u32..).zip((0..).map(|n| first.plus(n)).take(days as usize)) {
            while let Some(change) = changes.next_if(|change| change.on <= date) {
                centre.act(Act::Tables(vec![change.file]), catalogue.midnight(date))?;
                for act in centre.state.scope_updates(1, date) {
                    centre.act(act, catalogue.midnight(date))?;
                }
            }
            centre.take(date, receive()?, &mut summary)?;
            seen(Progress { days: (at, days), versions: summary.versions });
        }
        Ok(receive()?.into_iter().map(|sent| sent.bytes).collect())
    })?;
    let end = catalogue.midnight(end);
    let (state, acts) = centre.close(end)?;
    summary.acts = acts;
    summary.parked = state.parked.len() as u64;
    summary.ledger_bytes = std::fs::metadata(ledger_dir(dir).join("ledger.db"))?.len();
    summary.seconds = begun.elapsed().as_secs_f64();
    Ok(Made { state, summary, next })
}

/// A directory made with these options, by an earlier run or now: under the build's own folder, so that it
/// goes with `cargo clean`.
///
/// # Errors
/// As [`generate`].
pub fn fixture(options: &Options, seen: impl FnMut(Progress)) -> Result<Fixture> {
    let profile = profile_dir()?;
    let target = profile.parent().context("the profile's folder lies in the target directory")?;
    let dir = target.join("province").join(options.key()?);
    let told = dir.join("province.json");
    if let Ok(bytes) = std::fs::read(&told) {
        return Ok(Fixture { dir, summary: serde_json::from_slice(&bytes)? });
    }
    if dir.exists() {
        // Cut short.
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    let Made { summary, next, .. } = generate(&dir.join("centre"), options, seen)?;
    std::fs::write(dir.join(NEXT), encode(&next))?;
    // Last: whoever finds it finds all of it.
    std::fs::write(&told, serde_json::to_vec(&summary)?)?;
    Ok(Fixture { dir, summary })
}

fn year<'a>(
    options: &'a Options,
    catalogue: &'a Catalogue,
    organisation: &'a Organisation,
) -> Year<'a> {
    let months = options.all_months();
    let area = Area { catalogue, organisation, months, seed: options.seed };
    let days = area.months.iter().flat_map(|month| month.parts(PeriodType::Day));
    let holidays = days.map(|day| day.first_day()).filter(|day| area.holiday(*day)).collect();
    let of = |kind: usize, every: PeriodType| -> Vec<FormIx> {
        let forms = (0u16..).zip(&catalogue.forms);
        forms
            .filter(|(_, form)| {
                form.period_type == every && form.kinds.iter().any(|k| k.at() == kind)
            })
            .map(|(at, _)| FormIx(at))
            .collect()
    };
    let forms = (0..catalogue.kinds.len())
        .map(|kind| {
            [PeriodType::Day, PeriodType::Month, PeriodType::Year].map(|every| of(kind, every))
        })
        .collect();
    Year { options, area, holidays, forms }
}

/// Who reports for whom: township by township, the other facilities each for itself.
fn plan(year: &Year<'_>) -> Result<Vec<Township>> {
    let organisation = year.organisation();
    let day = year.first_day();
    let township = year.catalogue().kind("township").context("the catalogue has townships")?;
    let mut within = Vec::new();
    for text in &year.options.below {
        let unit = organisation.unit(text).with_context(|| format!("no unit {text}"))?;
        within.push(unit);
    }
    let mut townships: Vec<(Option<UnitIx>, Vec<UnitIx>)> = Vec::new();
    for unit in organisation.reporters().iter().copied().filter(|u| organisation.is_open(*u, day)) {
        if !within.is_empty() && !within.iter().any(|area| organisation.is_below(unit, *area, day))
        {
            continue;
        }
        let above = organisation.ancestor_of_kind(unit, township, day);
        match townships.last_mut() {
            Some((last, units)) if above.is_some() && *last == above => units.push(unit),
            _ => townships.push((above, vec![unit])),
        }
    }
    if townships.is_empty() {
        bail!("there is no facility below {}", year.options.below.join(", "));
    }
    Ok(townships.iter().map(|(above, units)| Township::new(year, *above, units)).collect())
}

/// Divides the work over the cores; the order of the results does not depend on how many there are.
fn shares(townships: Vec<Township>) -> Vec<Vec<Township>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let all: usize = townships.iter().map(|township| township.sites as usize).sum();
    let mut shares: Vec<Vec<Township>> = vec![Vec::new()];
    let mut sites = 0;
    for township in townships {
        if sites * cores >= all * shares.len() {
            shares.push(Vec::new());
        }
        sites += township.sites as usize;
        if let Some(share) = shares.last_mut() {
            share.push(township);
        }
    }
    shares
}

/// Enrols the agent of every desk.
fn enrol(centre: &mut Centre, townships: &mut [Township], seed: u64, at: Millis) -> Result<()> {
    let mut desks: Vec<&mut Desk> =
        townships.iter_mut().flat_map(|township| &mut township.desks).collect();
    let applicants: Vec<Applicant> = desks
        .iter()
        .map(|desk| Applicant {
            home: desk.home.clone(),
            below: desk.below.clone(),
            key: desk.key.public(),
        })
        .collect();
    let granted = centre.enrol(&applicants, seed, at)?;
    for (desk, (context, facilities)) in desks.iter_mut().zip(&granted) {
        desk.granted(*context, facilities);
    }
    for township in townships {
        let context =
            township.desks.first().and_then(|desk| centre.state.contexts.get(&desk.context));
        if let Some(context) = context.filter(|context| !context.below.is_empty()).cloned() {
            township.overlaps(&context.facilities);
        }
    }
    Ok(())
}

fn work(year: &Year<'_>, share: &mut [Township], end: Date, line: &SyncSender<Vec<Sent>>) {
    let mut date = year.first_day();
    // The last one is what would be sent next.
    while date <= end {
        let mut sent = Vec::new();
        for township in share.iter_mut() {
            township.day(year, date, &mut sent);
        }
        if line.send(sent).is_err() {
            // Whoever folds has failed and says so.
            return;
        }
        date = date.plus(1);
    }
}

#[cfg(test)]
mod tests;
