//! A year in little time: agents type it season by season over bad lines, while the aggregator is killed,
//! restarted, put back to older backups, and its disk fills up. After each season everything must be proved.
//! When the year is typed, corrections to it follow, half as many entries; in these, with no new month to keep,
//! memory and files must not grow.
//!
//! What is compressed is the typing: each season is some days of the year before now, typed within seconds. The
//! aggregator's clock is the machine's.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use banyan_shared::period::Date;
use indicatif::ProgressBar;
use rustix::fs::statvfs;
use serde::Serialize;
use serde_json::{Value, json};

use super::agent::Agent;
use super::life::Plan;
use super::measure::memory_mib;
use super::options::Options;
use super::proof::{self, Conservation};
use super::random::Random;
use super::run::sum;
use super::stage::Stage;
use super::world::{Made, make};
use crate::harness::{Aggregator, World, until};

/// How long a season's reports are typed.
const TYPING: Duration = Duration::from_secs(10);
/// How long a season is taken to last, until some have.
const SEASON: Duration = Duration::from_secs(30);
/// How long the disk stays full at most, should nothing come that has to be stored.
const FULL_AT_MOST: Duration = Duration::from_secs(60);
/// Within which time something is stored once there is room again.
const STORED_WITHIN: Duration = Duration::from_secs(120);
/// Larger file systems are not filled up: they may be somebody's.
const SMALL_DISK: u64 = 4 << 30;
/// The least seasons there are: of the year, and of corrections.
const SEASONS_MIN: [u64; 2] = [5, 3];
/// How far clocks may be off, in ms: some years.
const CLOCK_OFF: u64 = 5 * 365 * 86_400_000;
/// Descriptors that may come and go at rest.
const DESCRIPTORS_SLACK: u64 = 16;
/// What may be added to memory and to the bytes of a report while there are only corrections.
const GROWTH_MAX: f64 = 1.25;
/// MiB that count for nothing.
const MEMORY_SLACK_MIB: f64 = 24.0;
/// MiB of files that come and go: the ledger's log and that of `derived.db`, before they are cut back.
const FILES_SLACK_MIB: f64 = 48.0;

/// What happens to the aggregator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Fate {
    /// `kill -9`.
    Kill,
    /// SIGTERM.
    Restart,
    /// A full backup is written.
    Backup,
    /// The data directory is replaced by the newest backup.
    Restore,
    /// The file system has no room for a while.
    FullDisk,
}

/// A season, when everything had come to rest.
#[derive(Clone, Debug, Serialize)]
pub struct Season {
    /// The day of the last report or correction.
    through: String,
    /// Whether it was of corrections.
    corrections: bool,
    /// Reports and corrections typed in it.
    reports: u64,
    /// How long it took.
    seconds: f64,
    /// What happened.
    fates: Vec<Fate>,
    /// Entries the aggregator had lost by a restored backup, and got again.
    lost_by_centre: u64,
    /// Cells compared.
    cells: u64,
    /// Its memory.
    centre_mib: f64,
    /// Its open descriptors.
    descriptors: u64,
    /// Reports and corrections it holds.
    held: u64,
    /// Bytes of its files beyond those before the first report, backups left out, for each it holds.
    bytes_a_report: f64,
}

/// The year.
#[derive(Clone, Debug, Serialize)]
pub struct Year {
    scenario: &'static str,
    agents: u32,
    days: u32,
    seed: u64,
    link: String,
    seconds: f64,
    /// How often what happened.
    fates: BTreeMap<Fate, u64>,
    /// Whether the file system was small enough to be filled up.
    disk_is_small: bool,
    /// How often a commit failed, or the aggregator ended, because it was full.
    disk_noticed: u64,
    seasons: Vec<Season>,
    conservation: Conservation,
    /// What grew without need.
    grown: Vec<String>,
    /// Whether all is there once and nothing has grown.
    pub passed: bool,
}

impl Year {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for season in &self.seasons {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{}", season.text());
        }
        let proof = &self.conservation;
        let _ = writeln!(
            text,
            "{} agents, {} days in {:.0} s; {:?}; typed {}, receipted {}, in the ledger {}, stored again {}, lost \
             {}, twice {}, different {}",
            self.agents,
            self.days,
            self.seconds,
            self.fates,
            proof.typed,
            proof.receipted,
            proof.in_ledger,
            proof.stored_again,
            proof.lost,
            proof.twice,
            proof.different,
        );
        for line in proof.differences.iter().chain(&self.grown) {
            let _ = writeln!(text, "{line}");
        }
        text + if self.passed { "passed\n" } else { "FAILED\n" }
    }
}

impl Season {
    fn text(&self) -> String {
        format!(
            "through {}: {} reports, {:.0} s, {:?}, {} lost and got again, {} cells equal; {:.0} MiB, {} descriptors, \
             {:.0} bytes a report",
            self.through,
            self.reports,
            self.seconds,
            self.fates,
            self.lost_by_centre,
            self.cells,
            self.centre_mib,
            self.descriptors,
            self.bytes_a_report,
        )
    }
}

/// The aggregator and what it is put back to.
struct Ground<'a> {
    world: &'a World,
    centre: Option<Aggregator>,
    backup: PathBuf,
    small: bool,
    /// How often the aggregator found that its disk was full.
    disk_noticed: u64,
}

impl Ground<'_> {
    fn centre(&self) -> Result<&Aggregator> {
        self.centre.as_ref().context("the aggregator runs")
    }

    /// One of the intake's counters since the aggregator started; none if it does not say.
    fn counted(&self, name: &str) -> Option<u64> {
        let counters = self.centre.as_ref()?.get("/v1/counters").ok()?;
        serde_json::from_str::<Value>(&counters.body).ok()?["intake"][name].as_u64()
    }

    fn has_ended(&self) -> Result<bool> {
        Ok(self.centre()?.process().ended()?.is_some())
    }

    /// How the aggregator is, for whoever looks for what went wrong.
    fn condition(&self) -> String {
        let Some(centre) = &self.centre else { return "the aggregator does not run".to_owned() };
        let process = centre.process();
        let ended = match process.ended() {
            Ok(None) => "runs".to_owned(),
            Ok(Some(status)) => format!("ended ({status})"),
            Err(error) => error.to_string(),
        };
        let counters =
            centre.get("/v1/counters").map_or_else(|error| error.to_string(), |said| said.body);
        let log = process.log_end();
        format!("the aggregator {ended}; it counts {counters}; the end of its log:\n{log}")
    }

    /// Ends the aggregator somehow, does something, and starts it where it was.
    fn interrupt(
        &mut self,
        end: impl FnOnce(Aggregator) -> Result<()>,
        between: impl FnOnce(&World) -> Result<()>,
    ) -> Result<()> {
        let centre = self.centre.take().context("the aggregator runs")?;
        let (mqtt, http) = (centre.mqtt(), centre.http());
        end(centre)?;
        between(self.world)?;
        self.centre = Some(self.world.serve_at(mqtt, http)?);
        Ok(())
    }

    fn suffer(&mut self, fate: Fate) -> Result<()> {
        match fate {
            Fate::Kill => self.interrupt(Aggregator::kill9, |_| Ok(())),
            Fate::Restart => self.interrupt(Aggregator::stop, |_| Ok(())),
            Fate::Backup => {
                let path = self.backup.to_str().context("the directory's name is text")?;
                self.centre()?
                    .call(&json!({"command": "backup", "path": path, "identity": false}))?;
                Ok(())
            }
            Fate::Restore => {
                let backup = self.backup.clone();
                self.interrupt(Aggregator::kill9, |world| {
                    fs::remove_dir_all(world.centre())?;
                    let output = world.command().arg("restore").arg(&backup).output()?;
                    if !output.status.success() {
                        bail!("restore: {}", String::from_utf8_lossy(&output.stderr));
                    }
                    Ok(())
                })
            }
            Fate::FullDisk => {
                let before = self.counted("failed_commits").unwrap_or(0);
                let filler = fill(self.world.dir())?;
                let noticed = until("the full disk is noticed", FULL_AT_MOST, || {
                    let failed = self.counted("failed_commits").is_some_and(|now| now > before);
                    Ok((failed || self.has_ended()?).then_some(()))
                });
                let stored = self.counted("entries");
                fs::remove_file(filler)?;
                if noticed.is_err() {
                    return Ok(());
                }
                self.disk_noticed += 1;
                // What failed comes again: it is stored now, or the aggregator ends, which whoever runs it
                // starts anew.
                until("something is stored after the disk was full", STORED_WITHIN, || {
                    let more = self.counted("entries") > stored;
                    Ok((more || self.has_ended()?).then_some(()))
                })?;
                if self.has_ended()? {
                    self.interrupt(|_| Ok(()), |_| Ok(()))?;
                }
                Ok(())
            }
        }
    }

    /// What happens in a season, and when. Each has its turn, and another comes by chance.
    fn fates(&self, season: usize, random: &mut Random) -> Vec<(Duration, Fate)> {
        let turn = [Fate::Backup, Fate::Kill, Fate::FullDisk, Fate::Restart, Fate::Restore];
        let mut fates = vec![turn[season % turn.len()]];
        if random.below(2) == 0 {
            fates.push([Fate::Kill, Fate::Restart][random.below(2) as usize]);
        }
        fates.retain(|fate| match fate {
            Fate::FullDisk => self.small,
            Fate::Restore => self.backup.exists(),
            _ => true,
        });
        let within = u64::try_from(TYPING.as_millis()).unwrap_or(u64::MAX);
        let mut fates: Vec<(Duration, Fate)> = fates
            .into_iter()
            .map(|fate| {
                // A full disk matters while there is more to come.
                let within = if fate == Fate::FullDisk { within / 2 } else { within };
                (Duration::from_millis(random.below(within)), fate)
            })
            .collect();
        fates.sort_unstable();
        fates
    }
}

/// A file that takes all the room there is.
fn fill(dir: &Path) -> Result<PathBuf> {
    let path = dir.join("filler");
    let mut file = File::create(&path)?;
    for size in [1 << 20, 4096, 1] {
        let zeros = vec![0; size];
        loop {
            match file.write_all(&zeros) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(path)
}

/// Bytes of all files in a directory.
fn bytes_in(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => sum += bytes_in(&entry.path())?,
            Ok(meta) => sum += meta.len(),
            // The aggregator lives on meanwhile: files come and go.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(sum)
}

/// Lives the year.
///
/// # Errors
/// A season is not delivered in time, or something cannot be run or asked; what is lost or wrong is in the
/// result.
pub(super) fn live(
    options: &Options,
    (world, sockets): (World, usize),
    bar: &ProgressBar,
) -> Result<Year> {
    let begun = Instant::now();
    let mut made = make(world.dir(), options, |what| bar.set_message(what.to_owned()))?;
    let stage = Stage::new(options, sockets, bar)?;
    let disk = statvfs(world.dir())?;
    let small = disk.f_blocks.saturating_mul(disk.f_frsize) <= SMALL_DISK;
    let backup = world.dir().join("full.backup");
    let mut ground =
        Ground { world: &world, centre: Some(world.serve()?), backup, small, disk_noticed: 0 };
    let mut random = Random::new(options.seed, 0x736f_616b);
    let mut seasons: Vec<Season> = Vec::new();
    let mut fates: BTreeMap<Fate, u64> = BTreeMap::new();
    let mut proof = Conservation::default();
    let (days, mut typed) = (u64::from(options.days()), 0);
    // Every notebook has as many.
    let entries = made.agents.first().map_or(0, |agent| agent.notebook.len());
    let empty = bytes_in(&world.centre())?;
    let until = begun + Duration::from_secs(options.minutes * 60);
    while typed < entries && proof.holds_so_far() {
        let corrections = typed >= days;
        let part =
            if corrections { (entries - typed, entries - days) } else { (days - typed, days) };
        let next =
            next_entries(part, (entries - typed, corrections), (begun, until), seasons.len());
        let happened = ground.fates(seasons.len(), &mut random);
        for (_, fate) in &happened {
            *fates.entry(*fate).or_default() += 1;
        }
        let season = Instant::now();
        bar.set_message(format!("entry {} of {entries}", typed + next));
        let lost = sum(&made.agents).lost_by_centre;
        pass(&stage, &mut ground, &mut made, next, &happened, &mut random)
            .with_context(|| format!("a season with {happened:?}: {}", ground.condition()))?;
        typed += next;
        let restored = happened.iter().any(|(_, fate)| *fate == Fate::Restore);
        let from = made.agents.first().and_then(|agent| agent.notebook.day(typed - next + 1));
        let now = prove(&ground, &made, from.filter(|_| !restored && !corrections))?;
        let reports = made.agents.iter().map(Agent::written).sum::<u64>();
        let pid = ground.centre()?.process().id();
        let through = made.agents.first().and_then(|agent| agent.notebook.day(typed));
        seasons.push(Season {
            through: through.as_ref().map(Date::to_string).unwrap_or_default(),
            corrections,
            reports: next * u64::from(options.agents),
            seconds: season.elapsed().as_secs_f64(),
            fates: happened.into_iter().map(|(_, fate)| fate).collect(),
            lost_by_centre: sum(&made.agents).lost_by_centre - lost,
            cells: now.cells,
            centre_mib: memory_mib(pid)?.0,
            descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64,
            held: reports,
            bytes_a_report: bytes_in(&world.centre())?.saturating_sub(empty) as f64
                / reports as f64,
        });
        if let Some(season) = seasons.last() {
            bar.suspend(|| eprintln!("{}", season.text()));
        }
        proof = now;
    }
    bar.set_message("proving");
    if proof.holds_so_far() {
        proof = prove(&ground, &made, None)?;
    }
    ground.centre.take().context("the aggregator runs")?.stop()?;
    proof.ledger(&world.centre(), &made.agents)?;
    let grown = grown(&seasons);
    let all = typed == entries;
    Ok(Year {
        scenario: options.scenario.name(),
        agents: options.agents,
        days: options.days(),
        seed: options.seed,
        link: format!("{:?}", options.link),
        seconds: begun.elapsed().as_secs_f64(),
        fates,
        disk_is_small: small,
        disk_noticed: ground.disk_noticed,
        passed: all && proof.holds() && grown.is_empty(),
        seasons,
        conservation: proof,
        grown,
    })
}

/// How many entries the next season has, so that all ends about when it should: of so many left in this part of
/// the year and so many in the whole part; so many left in all.
fn next_entries(
    (left, part): (u64, u64),
    (in_all, corrections): (u64, bool),
    (begun, until): (Instant, Instant),
    seasons: usize,
) -> u64 {
    let now = Instant::now();
    let each = if seasons < 3 { SEASON } else { (now - begun) / seasons as u32 };
    let to_come =
        (until.saturating_duration_since(now).as_secs_f64() / each.as_secs_f64()).max(1.0);
    let most = part.div_ceil(SEASONS_MIN[usize::from(corrections)]);
    ((in_all as f64 / to_come) as u64).clamp(1, most.max(1)).min(left)
}

/// A season: typed over bad lines while things happen, then a quiet time in which everybody comes once more.
fn pass(
    stage: &Stage<'_>,
    ground: &mut Ground<'_>,
    made: &mut Made,
    days: u64,
    happens: &[(Duration, Fate)],
    random: &mut Random,
) -> Result<()> {
    let within = u64::try_from(TYPING.as_millis()).unwrap_or(u64::MAX);
    let from = |at: usize| Some(made.addresses[at]);
    let mut plans: Vec<Plan> = Vec::with_capacity(made.agents.len());
    let mut quiet: Vec<Plan> = Vec::with_capacity(made.agents.len());
    for at in 0..made.agents.len() {
        let mut due: Vec<Duration> =
            (0..days).map(|_| Duration::from_millis(random.below(within))).collect();
        due.sort_unstable();
        plans.push(Plan { from: from(at), due, vanishes: Some(TYPING / 3), ..Plan::default() });
        quiet.push(Plan { from: from(at), leaves: true, ..Plan::default() });
    }
    for agent in &mut made.agents {
        // Some clocks are off, now before and now behind.
        let off = i64::try_from(random.below(2 * CLOCK_OFF)).unwrap_or(0) - CLOCK_OFF as i64;
        agent.clock_ahead = if random.below(4) == 0 { off } else { 0 };
    }
    let to = ground.centre()?.mqtt();
    let agents = std::mem::take(&mut made.agents);
    let begun = Instant::now();
    let (agents, ()) = stage.deliver(to, made, (agents, plans), |_| {
        for (moment, fate) in happens {
            // The moment is the simulation's own.
            std::thread::sleep(moment.saturating_sub(begun.elapsed()));
            ground.suffer(*fate).with_context(|| format!("{fate:?}"))?;
        }
        Ok(())
    })?;
    (made.agents, ()) = stage.deliver(to, made, (agents, quiet), |_| Ok(()))?;
    Ok(())
}

fn prove(ground: &Ground<'_>, made: &Made, from: Option<Date>) -> Result<Conservation> {
    let mut proof = Conservation::of_agents(&made.agents);
    let form = (&*made.catalogue, made.form);
    let centre = ground.centre()?;
    proof::compare(centre, form, (&made.areas, from), &made.agents, &mut proof, |_| {})?;
    Ok(proof)
}

/// What has grown while there were only corrections.
fn grown(seasons: &[Season]) -> Vec<String> {
    let mut grown = Vec::new();
    let late: Vec<&Season> = seasons.iter().filter(|season| season.corrections).collect();
    if late.len() < 2 {
        grown.push("too few seasons of corrections to tell whether anything grows".to_owned());
        return grown;
    }
    let (first, last) = late.split_at(late.len() / 2);
    let most = |seasons: &[&Season], of: fn(&Season) -> f64| {
        seasons.iter().map(|season| of(season)).fold(0.0, f64::max)
    };
    let memory = |season: &Season| season.centre_mib;
    let (before, after) = (most(first, memory), most(last, memory));
    if after > before * GROWTH_MAX + MEMORY_SLACK_MIB {
        grown.push(format!("memory grew from {before:.0} to {after:.0} MiB"));
    }
    let bytes = |season: &Season| season.bytes_a_report;
    let (before, after) = (most(first, bytes), most(last, bytes));
    let allowed = |season: &Season| {
        before * GROWTH_MAX * season.held as f64 + FILES_SLACK_MIB * f64::from(1 << 20)
    };
    if last.iter().any(|season| bytes(season) * season.held as f64 > allowed(season)) {
        grown.push(format!("files grew from {before:.0} to {after:.0} bytes a report"));
    }
    let (least, most) = seasons.iter().fold((u64::MAX, 0), |(least, most), season| {
        (least.min(season.descriptors), most.max(season.descriptors))
    });
    if most > least + DESCRIPTORS_SLACK {
        grown.push(format!("descriptors at rest went from {least} to {most}"));
    }
    grown
}
