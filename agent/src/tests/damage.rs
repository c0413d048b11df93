//! Small files that are damaged or gone stop neither opening nor delivery.

use super::delivery::counted;
use super::*;

const DAY: &str = "2026-03-09";

/// An agent with a report that waits, made under context 3, and a newer context 4 under another catalogue.
fn with_two_contexts() -> (tempfile::TempDir, Centre) {
    let dir = tempfile::tempdir().unwrap();
    let mut centre = Centre::new();
    let (mut core, _clock) = enrolled(dir.path(), &centre);
    centre.connect(&mut core);
    save(&mut core, draft("daily", DAY, &["visits=4"]));
    centre.context = 4;
    centre.catalogue = centre.catalogue.replace("\"t1\"", "\"t2\"");
    centre.time = NOW.plus(1);
    drop(core);
    // The grant came, and the line went before anything else.
    let mut core = Core::open(options(dir.path(), 1).0).unwrap();
    let hello = core.connected().unwrap().send;
    let mut answers = centre.handle(&hello[0]);
    core.received(&answers.pop().unwrap()).unwrap();
    core.disconnected().unwrap();
    assert_eq!((core.identity().present(), status(&mut core).waiting), (Some(4), 1));
    (dir, centre)
}

/// The file of the catalogue of a context.
fn catalogue(dir: &Path, version: &str) -> std::path::PathBuf {
    let files = std::fs::read_dir(dir.join("catalogues")).unwrap();
    let mut files = files.map(|entry| entry.unwrap().path());
    files.find(|path| std::fs::read_to_string(path).unwrap().contains(version)).unwrap()
}

fn delivered(centre: &mut Centre, core: &mut Core) {
    centre.connect(core);
    let Reply::Sync(state) = core.handle(Command::SyncState) else { panic!() };
    assert_eq!(state.waiting, 0);
    assert_eq!(counted(centre, core.identity().agent()), [(DAY.to_owned(), 4)]);
}

#[test]
fn an_older_context_or_catalogue_that_is_damaged_or_gone_stops_nothing() {
    type Harm = fn(&Path);
    let harms: [Harm; 5] = [
        |dir| std::fs::write(dir.join("contexts/3"), b"torn").unwrap(),
        |dir| std::fs::remove_file(dir.join("contexts/3")).unwrap(),
        // To be opened, and not to be read.
        |dir| {
            std::fs::remove_file(dir.join("contexts/3")).unwrap();
            std::fs::create_dir(dir.join("contexts/3")).unwrap();
        },
        |dir| std::fs::write(catalogue(dir, "\"t1\""), b"torn").unwrap(),
        |dir| std::fs::remove_file(catalogue(dir, "\"t1\"")).unwrap(),
    ];
    for (n, harm) in harms.iter().enumerate() {
        let (dir, mut centre) = with_two_contexts();
        harm(dir.path());
        for _ in 0..2 {
            let mut core = Core::open(options(dir.path(), 1).0).unwrap();
            assert!(core.identity().is_lost(3) && !core.identity().is_lost(4), "{n}");
            assert_eq!(status(&mut core).home, "V-1");
            assert_eq!(faults(&mut core, draft("daily", DAY, &["visits=5"])), ["partial_report"]);
            delivered(&mut centre, &mut core);
        }
    }
}

#[test]
fn where_the_present_catalogue_is_damaged_the_older_one_serves_until_it_comes_anew() {
    for torn in [true, false] {
        let (dir, mut centre) = with_two_contexts();
        let path = catalogue(dir.path(), "\"t2\"");
        let mut core = Core::open(options(dir.path(), 1).0).unwrap();
        save(&mut core, draft("daily", "2026-03-08", &["visits=4"]));
        drop(core);
        if torn {
            std::fs::write(&path, b"torn").unwrap();
        } else {
            std::fs::remove_file(&path).unwrap();
        }
        let mut core = Core::open(options(dir.path(), 1).0).unwrap();
        assert_eq!(core.identity().present(), Some(3));
        assert!(save(&mut core, draft("daily", DAY, &["followups=2"])).replaced);
        // Made under the one that does not read.
        let other = draft("daily", "2026-03-08", &["referrals=1"]);
        assert_eq!(faults(&mut core, other.clone()), ["partial_report"]);
        centre.connect(&mut core);
        assert_eq!((core.identity().present(), status(&mut core).waiting), (Some(4), 0));
        assert!(save(&mut core, other).replaced, "it reads at once");
        drop(core);
        let core = Core::open(options(dir.path(), 1).0).unwrap();
        assert_eq!(core.identity().present(), Some(4));
        assert!(std::fs::read_to_string(path).unwrap().contains("\"t2\""));
    }
}

#[test]
fn without_any_context_left_what_waits_is_delivered_and_a_new_code_brings_one() {
    for harm in ["contexts/3", "catalogues"] {
        let dir = tempfile::tempdir().unwrap();
        let mut centre = Centre::new();
        let (mut core, _clock) = enrolled(dir.path(), &centre);
        centre.connect(&mut core);
        save(&mut core, draft("daily", DAY, &["visits=4"]));
        drop(core);
        if harm == "catalogues" {
            std::fs::remove_dir_all(dir.path().join(harm)).unwrap();
        } else {
            std::fs::write(dir.path().join(harm), b"torn").unwrap();
        }
        for _ in 0..2 {
            let mut core = Core::open(options(dir.path(), 1).0).unwrap();
            let drafts = vec![draft("daily", "2026-03-08", &["visits=4"])];
            let refused = core.handle(Command::Save { drafts, together: true });
            assert!(matches!(refused, Reply::Failed(_)), "{refused:?}");
            let part = core.handle(Command::BundleExport { from: None });
            assert!(matches!(part, Reply::BundlePart(part) if part.home.is_none()), "{harm}");
            delivered(&mut centre, &mut core);
        }
        Identity::begin(dir.path(), &centre.code(), None).unwrap();
        let mut core = Core::open(options(dir.path(), 1).0).unwrap();
        centre.connect(&mut core);
        assert!(save(&mut core, draft("daily", "2026-03-08", &["visits=4"])).saved, "{harm}");
    }
}
