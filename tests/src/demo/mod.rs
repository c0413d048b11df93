//! `cargo demo`: Guizhou's registry, hundreds of agents, two months of counts, a line that is cut and
//! processes that are killed — and at the end every cell counted as it was typed.

mod clinics;
mod screen;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use banyan_shared::catalogue::{Catalogue, Lang};
use banyan_shared::ids::UnitCode;
use banyan_shared::organisation::{Organisation, UnitIx};
use banyan_shared::period::{Date, Period, PeriodType};
use banyan_shared::wire::EnrolCode;
use clap::Parser;
use serde_json::{Value, json};

use crate::agents::{Agents, Enrolment};
use crate::counts::{Area, Desk, Plan, STAGES, Typed};
use crate::harness::{Aggregator, World, kill_all, until};
use crate::model::{Model, shipped};
use crate::proof::{Against, Proof};
use clinics::{Clinic, Way};
use screen::Screen;

/// The county, whose first community is shown.
const COUNTY: &str = "520502";
const COMMUNITY: &str = "CC-520502";
/// The city group shown, and the units its members lie in.
const GROUP: &str = "CG-5201-1";
/// What the views show.
const ELEMENTS: &str = "total_visits,home_visits,tcm_visits,admissions,discharges,referrals_up_out,\
                        referrals_down_in,chronic_followups,prescriptions,fd_contracts_active";
/// Enrolment files asked for at a time.
const FILES_AT_A_TIME: usize = 200;
/// How long everything may take to be certified, and to be received once faults have stopped.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);
/// How many bytes on the line mean that reports flow.
const FLOWING_BYTES: u64 = 4_000;
/// How long a fault waits for its moment, and how long it lasts at most.
const FAULT_WITHIN: Duration = Duration::from_secs(4);

/// 演示 Banyan at work on Guizhou's registry, with cuts and kills, proved cell by cell.
#[derive(Parser, Debug)]
#[command(name = "demo")]
pub struct Options {
    /// 演示后退出 End after the proof instead of serving until Ctrl-C
    #[arg(long)]
    pub exit: bool,
    /// 随机种子 What the counts start from
    #[arg(long, default_value_t = 20_260_101)]
    pub seed: u64,
    /// 语言 zh or en; both unless named
    #[arg(long, value_parser = lang)]
    pub lang: Option<Lang>,
    /// 保留数据的目录 Keep everything in this directory, which must be empty
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

fn lang(text: &str) -> Result<Lang, String> {
    match text {
        "zh" => Ok(Lang::Zh),
        "en" => Ok(Lang::En),
        _ => Err("zh or en".to_owned()),
    }
}

/// Runs the demo; fails if anything disagrees.
pub fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("错误 error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Told when the person wants to stop: at work everything is killed at once, while serving it ends in order.
#[derive(Default)]
struct Stop {
    serving: AtomicBool,
    wanted: AtomicBool,
}

impl Stop {
    fn watch(dir: Option<PathBuf>) -> Result<Arc<Stop>> {
        let stop = Arc::new(Stop::default());
        let told = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::spawn(move || {
            runtime.block_on(stop_signal());
            if told.serving.load(Ordering::SeqCst) {
                told.wanted.store(true, Ordering::SeqCst);
                return;
            }
            kill_all();
            if let Some(dir) = dir {
                // What cannot be removed is left to the system's own tidying.
                let _ = std::fs::remove_dir_all(dir);
            }
            std::process::exit(130);
        });
        Ok(stop)
    }
}

async fn stop_signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    // Without signals there is nothing to wait for but the end of the process.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The two whole months before `today`.
fn months(today: Date) -> Vec<Period> {
    let this = Period::containing(PeriodType::Month, today);
    vec![this.plus(-2), this.plus(-1)]
}

fn run(options: &Options) -> Result<bool> {
    let screen = Screen::new(options.lang);
    screen.note("编译程序……", "building the programs");
    if let Some(dir) = &options.keep
        && std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
    {
        bail!("{}: 目录非空 is not empty", dir.display());
    }
    let world = World::new(options.keep.as_deref())?;
    let stop = Stop::watch(options.keep.is_none().then(|| world.dir().to_owned()))?;
    let (catalogue, organisation) = shipped()?;
    let today = catalogue.day_at(jiff::Timestamp::now().into());
    let area = Area {
        catalogue: &catalogue,
        organisation: &organisation,
        months: months(today),
        seed: options.seed,
    };
    screen.note("建库：贵州省全部登记册", "init: the whole registry of Guizhou");
    world.init(&[])?;
    let centre = world.serve()?;
    let facilities = organisation.reporters().len();
    screen.note(
        &format!("汇总端已启动 http://{}，{facilities} 个机构", centre.http()),
        &format!("the aggregator serves at http://{}, {facilities} facilities", centre.http()),
    );
    let show = Show {
        screen: &screen,
        world: &world,
        area: &area,
        catalogue: Arc::new(catalogue.clone()),
        organisation: &organisation,
        model: Mutex::new(Model::default()),
        kills: AtomicU64::new(0),
    };
    show.go(options, &stop, centre)
}

/// Everything the demo needs.
struct Show<'a> {
    screen: &'a Screen,
    world: &'a World,
    area: &'a Area<'a>,
    catalogue: Arc<Catalogue>,
    organisation: &'a Organisation,
    model: Mutex<Model>,
    kills: AtomicU64,
}

/// What goes wrong in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Cut,
    KillCentre,
    KillAgents,
    FreezeAndCut,
}

/// One fault a go.
const FAULTS: [Fault; STAGES] = [
    Fault::Cut,
    Fault::KillAgents,
    Fault::KillCentre,
    Fault::FreezeAndCut,
    Fault::KillCentre,
    Fault::Cut,
];

impl Show<'_> {
    fn unit(&self, code: &str) -> Result<UnitIx> {
        self.organisation.unit(code).with_context(|| format!("{code} is not in the registry"))
    }

    /// The group's members, and the areas to ask for them.
    fn group(&self) -> Result<(Vec<UnitIx>, Vec<String>)> {
        let network =
            self.organisation.network(GROUP).with_context(|| format!("no network {GROUP}"))?;
        let day = self.area.months.last().map_or(Date::MIN, |month| month.last_day());
        let members = self.organisation.facilities_in(network, day);
        let areas = self.organisation.network_info(network).area.clone();
        let mut places: Vec<String> =
            areas.iter().map(|area| self.organisation.code(*area).to_string()).collect();
        // The lead lies above the area.
        for member in &members {
            if !areas.iter().any(|area| self.organisation.is_below(*member, *area, day)) {
                places.push(self.organisation.code(*member).to_string());
            }
        }
        Ok((members, places))
    }

    fn go(&self, options: &Options, stop: &Stop, centre: Aggregator) -> Result<bool> {
        let screen = self.screen;
        let mut plans = self.area.county(self.unit(COUNTY)?);
        let (members, mut places) = self.group()?;
        plans.extend(self.area.facilities(&members));
        places.insert(0, COUNTY.to_owned());

        let (mut fleet, mut clinics) = self.enrol(&centre, plans)?;
        screen.note(
            &format!(
                "{} 个终端已注册，其中 {} 个为独立进程",
                fleet.len() + clinics.len(),
                clinics.len()
            ),
            &format!(
                "{} agents enrolled, {} of them programs of their own",
                fleet.len() + clinics.len(),
                clinics.len()
            ),
        );
        let centre = self.two_months(&mut fleet, &mut clinics, centre)?;
        self.settle(&fleet, &clinics)?;
        let agrees = self.prove(&centre, &places)?;
        self.views(&centre)?;
        let agents = fleet.len() + clinics.len();
        self.summary(&centre, agents, agrees)?;
        if !options.exit {
            stop.serving.store(true, Ordering::SeqCst);
            screen.say("按 Ctrl-C 结束。", "Ctrl-C ends.");
            while !stop.wanted.load(Ordering::SeqCst) {
                centre.process().check().or_else(|error| {
                    // Ctrl-C reaches the whole terminal: the aggregator may have heard it first.
                    if stop.wanted.load(Ordering::SeqCst) { Ok(()) } else { Err(error) }
                })?;
                std::thread::park_timeout(Duration::from_millis(200));
            }
        }
        drop((fleet, clinics));
        if centre.process().ended()?.is_none() {
            centre.stop()?;
        }
        Ok(agrees)
    }

    /// Enrols every agent: villages by file with no line, townships by code, a few as real programs.
    fn enrol(&self, centre: &Aggregator, plans: Vec<Plan>) -> Result<(Agents, Vec<Clinic>)> {
        let bar = self.screen.bar("注册", "enrolling", plans.len() as u64);
        let mut wanted: VecDeque<(Desk, Way)> = VecDeque::from([
            (Desk::Village, Way::Service),
            (Desk::Village, Way::Commands),
            (Desk::Village, Way::Files),
            (Desk::Village, Way::Paper),
            (Desk::Hospital, Way::Commands),
            (Desk::Township, Way::Files),
        ]);
        let mut real = Vec::new();
        let mut by_file = Vec::new();
        let mut by_code = Vec::new();
        for plan in plans {
            let fits = |(desk, _): &(Desk, Way)| {
                // With every go to type, and no villages to type for.
                let stages: Vec<usize> = plan.typed.iter().map(|typed| typed.stage).collect();
                *desk == plan.desk
                    && plan.below.is_none()
                    && (plan.desk == Desk::Hospital || (0..STAGES).all(|at| stages.contains(&at)))
            };
            if let Some(at) = wanted.iter().position(fits)
                && let Some((_, way)) = wanted.remove(at)
            {
                real.push((plan, way));
            } else if plan.below.is_some() {
                by_code.push(plan);
            } else {
                by_file.push(plan);
            }
        }
        if !wanted.is_empty() {
            bail!("the plans have no {wanted:?}");
        }
        let mut enrolments = Vec::new();
        for some in by_file.chunks(FILES_AT_A_TIME) {
            let units: Vec<&str> = some.iter().map(|plan| plan.home.as_str()).collect();
            let made = centre.call(
                &json!({ "command": "enrol_each", "units": units, "expires_s": 7 * 86_400 }),
            )?;
            for (plan, file) in some.iter().zip(made.as_array().context("a list of files")?) {
                let text = file["file"].as_str().context("a file")?;
                enrolments.push((plan.clone(), Enrolment::File(base64(text)?)));
            }
        }
        for plan in by_code {
            let below: Vec<&str> = plan.below.iter().map(UnitCode::as_str).collect();
            let code = code(centre, plan.home.as_str(), &below)?;
            let code: EnrolCode = code.parse().context("reading a code")?;
            enrolments.push((plan, Enrolment::Code(code)));
        }
        let mut fleet = Agents::new()?;
        fleet.enrol(&self.world.dir().join("agents"), enrolments, || bar.inc(1))?;
        let mut clinics = Vec::new();
        for (plan, way) in real {
            let agent = self.world.agent(&format!("real-{}", plan.home));
            let code = code(centre, plan.home.as_str(), &[])?;
            clinics.push(Clinic::enrol(agent, plan, way, &code)?);
            bar.inc(1);
        }
        fleet.certified(SETTLED_WITHIN, |standing| {
            bar.set_message(format!(
                "{} {}",
                self.screen.text("已认证", "certified"),
                standing.enrolled
            ));
        })?;
        bar.finish_and_clear();
        Ok((fleet, clinics))
    }

    /// Two months typed in goes, each with its fault.
    fn two_months(
        &self,
        fleet: &mut Agents,
        clinics: &mut [Clinic],
        mut centre: Aggregator,
    ) -> Result<Aggregator> {
        let all: u64 = fleet
            .plans()
            .chain(clinics.iter().map(|clinic| &clinic.plan))
            .map(|plan| plan.typed.len() as u64)
            .sum();
        let typed = self.screen.bar("已录入", "typed   ", all);
        let received = self.screen.bar("已回执", "receipts", all);
        let over = AtomicBool::new(false);
        let fleet = &*fleet;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    let standing = fleet.standing();
                    received.set_position(typed.position().saturating_sub(standing.waiting));
                    received.set_message(format!(
                        "{} {}/{}",
                        self.screen.text("在线", "online"),
                        standing.connected,
                        fleet.len()
                    ));
                    std::thread::park_timeout(Duration::from_millis(250));
                }
            });
            let result = (0..STAGES).try_for_each(|stage| {
                let fault = FAULTS[stage];
                let busy = AtomicU64::new(0);
                std::thread::scope(|goes| -> Result<()> {
                    let mut typing = Vec::new();
                    busy.fetch_add(1, Ordering::SeqCst);
                    typing.push(goes.spawn(|| {
                        let result = fleet.type_stage(stage, &self.catalogue, &self.model, |n| {
                            typed.inc(n);
                        });
                        busy.fetch_sub(1, Ordering::SeqCst);
                        result
                    }));
                    for clinic in clinics.iter_mut() {
                        busy.fetch_add(1, Ordering::SeqCst);
                        let (typed, busy) = (&typed, &busy);
                        typing.push(goes.spawn(move || {
                            let result = self.at_a_clinic(clinic, stage, fault);
                            busy.fetch_sub(1, Ordering::SeqCst);
                            typed.inc(result?);
                            Ok(())
                        }));
                    }
                    let busy = || busy.load(Ordering::SeqCst) > 0;
                    self.fault(fault, fleet, &mut centre, &busy)?;
                    for one in typing {
                        one.join().map_err(|_| anyhow!("typing panicked"))??;
                    }
                    Ok(())
                })
            });
            over.store(true, Ordering::SeqCst);
            result
        })?;
        typed.finish_and_clear();
        received.finish_and_clear();
        Ok(centre)
    }

    fn at_a_clinic(&self, clinic: &mut Clinic, stage: usize, fault: Fault) -> Result<u64> {
        let kill = fault == Fault::KillAgents && matches!(clinic.way, Way::Service | Way::Files);
        let done: Vec<Typed> = clinic.type_stage(&self.catalogue, stage, kill)?;
        if kill {
            self.kills.fetch_add(1, Ordering::SeqCst);
            self.screen.note(
                &format!("kill -9：终端 {} 正在录入时被杀，已重启", clinic.plan.home),
                &format!("kill -9: agent {} while typing, started again", clinic.plan.home),
            );
        }
        let mut model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        for typed in &done {
            model.saved(&self.catalogue, clinic.id, typed, clinic.how(typed));
        }
        Ok(done.len() as u64)
    }

    /// Brings a fault about once reports flow, and mends it.
    fn fault(
        &self,
        fault: Fault,
        fleet: &Agents,
        centre: &mut Aggregator,
        busy: &dyn Fn() -> bool,
    ) -> Result<()> {
        let (screen, link) = (self.screen, &self.world.link);
        let before = link.bytes().0;
        let flowing = || Ok((link.bytes().0 > before + FLOWING_BYTES || !busy()).then_some(()));
        // A fault lasts until all of the go has been typed: it waits in the queues.
        let felt = || {
            // Not in time is as good: the fault has lasted long enough.
            let _ = until("the go is typed", FAULT_WITHIN, || Ok((!busy()).then_some(())));
            let waiting = fleet.standing().waiting;
            screen.note(
                &format!("队列中 {waiting} 份"),
                &format!("{waiting} reports wait in the queues"),
            );
        };
        match fault {
            Fault::KillAgents => {}
            Fault::Cut | Fault::FreezeAndCut => {
                if fault == Fault::FreezeAndCut {
                    link.freeze();
                    screen.note("线路卡死", "the line is frozen");
                    felt();
                } else {
                    until("reports flow", FAULT_WITHIN, flowing).or_else(|_| anyhow::Ok(()))?;
                }
                link.cut();
                screen.note("线路中断", "the line is cut");
                if fault == Fault::Cut {
                    felt();
                }
                link.restore();
                fleet.nudge();
                screen.note("线路恢复", "the line is mended");
            }
            Fault::KillCentre => {
                until("reports flow", FAULT_WITHIN, flowing).or_else(|_| anyhow::Ok(()))?;
                let (mqtt, http) = (centre.mqtt(), centre.http());
                centre.process().kill9()?;
                self.kills.fetch_add(1, Ordering::SeqCst);
                screen.note("kill -9：汇总端被杀", "kill -9: the aggregator");
                felt();
                *centre = self.world.serve_at(mqtt, http)?;
                fleet.nudge();
                screen.note("汇总端已重启，端口不变", "the aggregator is back on the same ports");
            }
        }
        Ok(())
    }

    /// Waits until every report has its receipt.
    fn settle(&self, fleet: &Agents, clinics: &[Clinic]) -> Result<()> {
        let first = fleet.standing().waiting;
        let bar = self.screen.bar("等待回执", "last receipts", first);
        fleet.nudge();
        until("every report has a receipt", SETTLED_WITHIN, || {
            let standing = fleet.standing();
            bar.set_position(first.saturating_sub(standing.waiting));
            Ok((standing.waiting == 0).then_some(()))
        })?;
        fleet.hello_again(SETTLED_WITHIN)?;
        for clinic in clinics {
            clinic.sync()?;
        }
        bar.finish_and_clear();
        self.screen.note("所有报表均有回执", "every report has its receipt");
        Ok(())
    }

    fn prove(&self, centre: &Aggregator, places: &[String]) -> Result<bool> {
        let places: Vec<&str> = places.iter().map(String::as_str).collect();
        let model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        let against = Against {
            catalogue: &self.catalogue,
            organisation: self.organisation,
            model: &model,
            centre,
        };
        let proof = against.prove(&places, &self.area.months)?;
        let verified = centre.call(&json!({ "command": "verify", "all": true }))?;
        let screen = self.screen;
        let Proof { cells, numbers, not_applicable, empty, sums, tallies, .. } = proof;
        screen.note(
            &format!(
                "录入＝汇总：核对 {cells} 格（数值 {numbers}，不适用 {not_applicable}，空 {empty}）、\
                 {sums} 个合计、{tallies} 个份数；{} 份报表有分歧版本；不一致 {} 处",
                proof.conflicts, proof.different
            ),
            &format!(
                "typed = counted: {cells} cells ({numbers} numbers, {not_applicable} not applicable, {empty} \
                 empty), {sums} sums, {tallies} tallies; {} reports in conflict; {} differences",
                proof.conflicts, proof.different
            ),
        );
        for difference in &proof.differences {
            screen.print(&format!("    {difference}"));
        }
        let agrees = verified["agrees"] == true;
        let signatures = &verified["signatures"];
        screen.note(
            &format!("核验账本：{signatures} 个签名，{}", if agrees { "一致" } else { "不一致" }),
            &format!(
                "verify: {signatures} signatures, {}",
                if agrees { "all agrees" } else { "DISAGREES" }
            ),
        );
        if let Some(list) = verified["differences"].as_array() {
            for difference in list {
                screen.print(&format!("    {difference}"));
            }
        }
        Ok(agrees && proof.different == 0 && proof.numbers > 0)
    }

    /// The county's and the city group's views as the command line prints them.
    fn views(&self, centre: &Aggregator) -> Result<()> {
        let screen = self.screen;
        let month = self.area.months[1].to_string();
        for place in [COMMUNITY, GROUP] {
            screen.print(&format!("\n$ banyan-aggregator query {place} {month} --element …"));
            screen.print(&self.command(&["query", place, &month, "--element", ELEMENTS])?);
            screen.print(&format!("$ banyan-aggregator completeness {place} {month}"));
            screen.print(&self.command(&["completeness", place, &month])?);
        }
        screen.say("网页（用浏览器打开）：", "pages to open:");
        for place in [COMMUNITY, GROUP] {
            screen.print(&format!("  http://{}/place/{place}?period={month}", centre.http()));
        }
        Ok(())
    }

    fn command(&self, arguments: &[&str]) -> Result<String> {
        let output = self
            .world
            .command()
            .args(arguments)
            .args(["--lang", self.screen.lang()])
            .output()
            .context("starting banyan-aggregator")?;
        if !output.status.success() {
            bail!("{}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    fn summary(&self, centre: &Aggregator, agents: usize, agrees: bool) -> Result<()> {
        let model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        let counts: u64 = model
            .counted()
            .map(|(_, report)| {
                report.values.iter().filter(|value| value.is_answer()).count() as u64
            })
            .sum();
        let (up, down) = self.world.link.bytes();
        let status: Value = centre.call(&json!({ "command": "status" }))?;
        let (cuts, kills) = (self.world.link.cuts(), self.kills.load(Ordering::SeqCst));
        let (reports, versions) = (model.len(), model.versions());
        let each = up as f64 / counts.max(1) as f64;
        let seconds = self.screen.elapsed().as_secs();
        let position = &status["position"];
        self.screen.say(
            &format!(
                "{agents} 个终端，{reports} 份报表（{versions} 个版本），{counts} 个数；账本 {position} 条；上行 {up} 字节\
                 （每数 {each:.2} 字节，含重发），下行 {down} 字节；断线 {cuts} 次，kill -9 {kills} 次；用时 {seconds} 秒"
            ),
            &format!(
                "{agents} agents, {reports} reports ({versions} versions), {counts} counts; {position} ledger rows; \
                 {up} bytes up ({each:.2} a count, sent again included), {down} down; {cuts} cuts, {kills} kill -9; {seconds} s"
            ),
        );
        if agrees {
            self.screen
                .say("录入＝汇总，账本核验一致。", "Typed = counted, and the ledger verifies.");
        } else {
            self.screen.say("不一致！见上。", "DISAGREEMENT, see above.");
        }
        Ok(())
    }
}

fn code(centre: &Aggregator, home: &str, below: &[&str]) -> Result<String> {
    let kinds: &[&str] = if below.is_empty() { &[] } else { &["village_clinic"] };
    let made = centre.call(&json!({
        "command": "enrol", "units": [home], "below": below, "kinds": kinds,
        "expires_s": 7 * 86_400,
    }))?;
    Ok(made["code"].as_str().context("a code")?.to_owned())
}

fn base64(text: &str) -> Result<Vec<u8>> {
    data_encoding::BASE64.decode(text.as_bytes()).context("the file is base64")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_months_are_the_two_whole_ones_before_today() {
        let of = |day: &str| -> Vec<String> {
            months(day.parse().unwrap()).iter().map(ToString::to_string).collect()
        };
        assert_eq!(of("2026-11-22"), ["2026-09", "2026-10"]);
        assert_eq!(of("2026-01-01"), ["2025-11", "2025-12"]);
    }
}
