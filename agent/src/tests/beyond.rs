//! Reports of which the centre may hold more than the agent: nothing there is wiped by what nobody named.

use banyan_shared::ids::AgentId;

use super::*;
use crate::cli::run_args;

const FULL: [&str; 7] = [
    "open_days=1",
    "visits=12",
    "home_visits=",
    "tcm_visits=3",
    "referrals=NA",
    "followups=4",
    "consultations=0",
];
const DAY: &str = "2026-03-09";

fn partial(period: &str) -> Draft {
    draft("daily", period, &["visits=13"])
}

/// A partial report is refused with the elements it lacks, one in full is saved and can be corrected in part.
fn only_in_full(core: &mut Core, period: &str) {
    assert_eq!(faults(core, partial(period)), ["partial_report"]);
    let (_, refused) = save_all(core, vec![partial(period)]);
    let lacking = "open_days, home_visits, tcm_visits, referrals, followups, consultations";
    let fault = &refused[0].faults[0];
    assert!(fault.zh.contains(lacking) && fault.en.contains(lacking), "{fault:?}");
    assert_eq!(save(core, draft("daily", period, &FULL)).changes.len(), 6);
    let corrected = save(core, partial(period));
    assert!(corrected.replaced && corrected.changes.len() == 1, "{corrected:?}");
}

fn free(core: &mut Core, period: &str) {
    assert!(save(core, partial(period)).saved);
}

#[test]
fn who_continues_another_ones_history_reports_its_time_in_full() {
    let dir = tempfile::tempdir().unwrap();
    let mut centre = Centre::new();
    let (mut core, clock) = enrolled(dir.path(), &centre);
    centre.succeeds = Some(AgentId([9; 6]));
    centre.connect(&mut core);
    only_in_full(&mut core, DAY);
    let closed = Draft { closed: true, ..draft("daily", "2026-03-08", &[]) };
    assert!(save(&mut core, closed).saved, "that names every element");
    // A later grant moves nothing.
    let later = NOW.plus(30 * DAY_MS);
    clock.set(later);
    centre.time = later;
    centre.roll(3, 2, Millis(7));
    centre.connect(&mut core);
    drop(core);
    let (options, clock) = options(dir.path(), 1);
    clock.set(later);
    let mut core = Core::open(options).unwrap();
    free(&mut core, "2026-03-12");
    only_in_full(&mut core, "2026-03-07");
    // What one command says in two drafts is one report.
    let (saved, refused) =
        save_all(&mut core, vec![draft("daily", "2026-03-06", &FULL), partial("2026-03-06")]);
    assert!(refused.is_empty() && saved.len() == 2, "{refused:?}");
}

#[test]
fn what_was_dropped_after_its_time_is_corrected_in_full() {
    let dir = tempfile::tempdir().unwrap();
    let mut centre = Centre::new();
    let (mut core, clock) = enrolled(dir.path(), &centre);
    free(&mut core, DAY);
    free(&mut core, "2024-03-09");
    centre.connect(&mut core);
    let later = NOW.plus(402 * DAY_MS);
    clock.set(later);
    centre.time = later;
    centre.connect(&mut core);
    assert_eq!(status(&mut core).received, 0);
    only_in_full(&mut core, DAY);
    only_in_full(&mut core, "2024-03-09");
    free(&mut core, "2026-04-12");
}

/// Zeros where the store's bytes were.
fn ruin(dir: &Path) {
    for entry in std::fs::read_dir(dir.join("queue")).unwrap() {
        let file = entry.unwrap().path().join("db");
        if let Ok(bytes) = std::fs::read(&file) {
            std::fs::write(&file, vec![0; bytes.len()]).unwrap();
        }
    }
}

#[test]
fn after_a_loss_what_may_be_lost_is_reported_in_full() {
    let dir = tempfile::tempdir().unwrap();
    let mut centre = Centre::new();
    let (mut core, _clock) = enrolled(dir.path(), &centre);
    free(&mut core, DAY);
    centre.connect(&mut core);
    drop(core);
    ruin(dir.path());
    // Whatever the clock says, nothing lost was entered after the next receipt.
    let (wrong, clock) = options(dir.path(), 1);
    clock.set(NOW.plus(14 * 365 * DAY_MS));
    let mut core = Core::open(wrong).unwrap();
    only_in_full(&mut core, DAY);
    assert_eq!(faults(&mut core, partial("2026-03-13")), ["partial_report"]);
    centre.connect(&mut core);
    drop(core);
    let (right, clock) = options(dir.path(), 1);
    clock.set(NOW.plus(4 * DAY_MS));
    let mut core = Core::open(right).unwrap();
    free(&mut core, "2026-03-13");
    only_in_full(&mut core, "2026-03-08");
}

#[test]
fn an_older_version_is_no_base_where_the_newest_may_be_lost() {
    let dir = tempfile::tempdir().unwrap();
    let centre = Centre::new();
    let (mut core, _clock) = enrolled(dir.path(), &centre);
    save(&mut core, draft("daily", DAY, &FULL));
    drop(core);
    let old = tempfile::tempdir().unwrap();
    copy(&dir.path().join("queue/store-1"), old.path());
    let mut core = Core::open(options(dir.path(), 1).0).unwrap();
    save(&mut core, draft("daily", DAY, &["followups=5"]));
    drop(core);
    std::fs::remove_dir_all(dir.path().join("queue/store-1")).unwrap();
    copy(old.path(), &dir.path().join("queue/store-1"));
    let mut core = Core::open(options(dir.path(), 1).0).unwrap();
    assert_eq!(faults(&mut core, partial(DAY)), ["partial_report"]);
    let five = FULL.map(|pair| if pair == "followups=4" { "followups=5" } else { pair });
    let again = save(&mut core, draft("daily", DAY, &five));
    assert!(again.replaced, "{again:?}");
}

#[test]
fn where_a_context_is_lost_its_periods_are_reported_in_full() {
    let dir = tempfile::tempdir().unwrap();
    let mut centre = Centre::new();
    let (mut core, _clock) = enrolled(dir.path(), &centre);
    centre.connect(&mut core);
    free(&mut core, DAY);
    drop(core);
    (centre.context, centre.time) = (4, NOW.plus(1));
    let mut identity = Identity::open(dir.path()).unwrap().unwrap();
    assert!(identity.accept(&centre.grant(identity.key().public()), None).unwrap());
    std::fs::write(dir.path().join("contexts/3"), b"torn").unwrap();
    let mut core = Core::open(options(dir.path(), 1).0).unwrap();
    only_in_full(&mut core, DAY);
    free(&mut core, "2026-03-08");
}

#[test]
fn a_file_that_names_part_of_such_a_report_is_refused_row_by_row() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut centre = Centre::new();
    let file = centre.file();
    Identity::from_file(&data, &file, &file.offers[0]).unwrap();
    centre.succeeds = Some(AgentId([9; 6]));
    centre.connect(&mut Core::open(Options::new(&data)).unwrap());
    let import = |rows: &str, more: &[&str]| {
        let path = dir.path().join("counts.csv");
        std::fs::write(&path, rows).unwrap();
        let mut args = vec!["banyan-agent", "--data-dir", data.to_str().unwrap(), "import"];
        args.push(path.to_str().unwrap());
        args.extend(more);
        run_args(args.into_iter().map(Into::into).collect())
    };
    let head = "facility,form,period,open_days,visits,home_visits,tcm_visits,referrals,followups,consultations";
    let part = "facility,form,period,visits\nV-1,daily,2026-03-09,5\n";
    let errors = || std::fs::read_to_string(dir.path().join("counts.errors.csv")).unwrap();
    assert_eq!(import(part, &[]), 1);
    assert!(errors().contains("open_days"), "{}", errors());
    let gap =
        format!("{head}\nV-1,daily,2026-03-09,1,5,,0,0,0,0\nV-1,daily,2026-03-08,1,5,0,0,0,0,0\n");
    assert_eq!(import(&gap, &[]), 1);
    assert!(errors().contains("home_visits") && !errors().contains("2026-03-08"), "{}", errors());
    assert_eq!(import(&gap, &["--empty", "missing"]), 0);
    assert_eq!(import(part, &[]), 0, "now it is known in full");
}
