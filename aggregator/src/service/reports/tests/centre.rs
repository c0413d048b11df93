//! Whole centres: the service with its ledger, opened again, exported and read in elsewhere.

use super::*;

/// When the tests of whole centres play: after whatever day they are run on, since `init` looks at the clock.
pub(in crate::service) const LATER: Millis = Millis(4_000_000_000_000);

/// A centre of the fixture's country in a folder that goes with it.
pub(in crate::service) struct Centre {
    pub(in crate::service) dir: tempfile::TempDir,
    pub(in crate::service) runtime: tokio::runtime::Runtime,
    pub(in crate::service) service: std::sync::Arc<crate::service::Service>,
    pub(in crate::service) running: crate::service::Running,
}

impl Centre {
    pub(in crate::service) fn new() -> Centre {
        Centre::of(crate::query::fixture::CATALOGUE)
    }

    fn of(catalogue: &str) -> Centre {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        use crate::query::fixture;
        let sources = crate::init::Sources {
            catalogue: Some(file("catalogue.toml", catalogue)),
            tables: vec![
                ("units.csv", file("units.csv", fixture::UNITS)),
                ("networks.csv", file("networks.csv", fixture::NETWORKS)),
                ("members.csv", file("members.csv", fixture::MEMBERS)),
            ],
        };
        crate::init::init(&dir.path().join("data"), &sources, "test", Lang::En).unwrap();
        Centre::open(dir)
    }

    fn open(dir: tempfile::TempDir) -> Centre {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let clock: crate::intake::Clock = std::sync::Arc::new(|| LATER);
        let data = dir.path().join("data");
        let opened = crate::service::Service::open(&data, clock, None);
        let (service, running) = runtime.block_on(opened).unwrap();
        Centre { dir, runtime, service, running }
    }

    /// Opens the same folder again.
    fn again(self) -> Centre {
        let Centre { dir, runtime, service, running } = self;
        drop(service);
        runtime.block_on(running.stop()).unwrap();
        Centre::open(dir)
    }

    fn import(&self, text: &str) -> Imported {
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
        let header = reader.headers().unwrap().iter().map(str::to_owned).collect();
        let rows = (2..).zip(reader.records().map(Result::unwrap));
        let rows = rows.map(|(line, row)| (line, row.iter().map(str::to_owned).collect()));
        let call = ImportCall {
            file: "f.csv".into(),
            header,
            rows: rows.collect(),
            ..ImportCall::default()
        };
        self.runtime.block_on(self.service.import_counts("operator", call)).unwrap()
    }

    fn correct(&self, facility: &str, form: &str, period: &str, value: &str) -> Changed {
        let call = ChangeCall {
            facility: facility.into(),
            form: form.into(),
            period: period.into(),
            values: vec![value.into()],
            reason: "recount".into(),
            ..ChangeCall::default()
        };
        self.runtime.block_on(self.service.correct("operator", call)).unwrap()
    }

    fn export(&self, unit: &str, period: &str, level: Option<&str>) -> (Exported, String) {
        let path = self.dir.path().join("out.csv").display().to_string();
        let call = ExportCall {
            unit: unit.into(),
            period: period.into(),
            level: level.map(Into::into),
            path: path.clone(),
            lang: Lang::En,
            ..ExportCall::default()
        };
        let written = self.service.export_counts(&call).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(written.bytes, text.len() as u64);
        assert_eq!(written.rows, text.lines().count() as u64 - 1);
        (written, text)
    }

    fn figures(&self, unit: &str, period: &str, by: &str) -> serde_json::Value {
        let call = crate::service::QueryCall {
            unit: unit.into(),
            period: period.into(),
            by: vec![by.into()],
            ..Default::default()
        };
        serde_json::to_value(self.service.figures(&call).unwrap().rows).unwrap()
    }
}

const COUNTS: &str = "\
facility,form,period,element,value,how,entered_by,reason
A,daily,2026-01-05,visits,12,direct,W01,
A,daily,2026-01-05,home_visits,NA,direct,W01,
A,daily,2026-01-06,visits,0,proxy,王医生,
B,daily,2026-01-05,visits,9007199254740991,paper_later,'-x,recount
M,daily,2026-01-31,visits,3,,,
H1,hospital_monthly,2026-01,visits,500,,,
H1,hospital_monthly,2026-01,types_ytd,40,,,
H2,hospital_monthly,2026-01,visits,300,,,
H2,hospital_monthly,2026-01,types_ytd,30,,,
B1,desk_monthly,2026-01,payer_visits,77,,,
";

#[test]
fn an_export_read_into_an_empty_centre_gives_the_same_figures() {
    let centre = Centre::new();
    let counts = COUNTS.replace("9007199254740991", "1000000000000");
    let taken = centre.import(&counts);
    assert!(taken.refused.is_empty(), "{:?}", taken.refused);
    assert_eq!(taken.new, 7);
    assert_eq!(centre.import(&counts).unchanged, 7);
    centre.correct("A", "daily", "2026-01-05", "visits=13");
    centre.correct("D", "daily", "2026-01-07", "visits=2");
    let (written, text) = centre.export("P", "2026-01", None);
    assert_eq!(written.reports, 8);
    let lines: Vec<&str> = text.lines().collect();
    for line in [
        "A,daily,2026-01-05,visits,13,operator,operator,recount",
        "A,daily,2026-01-05,home_visits,NA,operator,operator,recount",
        "A,daily,2026-01-06,visits,0,proxy,王医生,",
        "A,daily,2026-01-06,home_visits,,proxy,王医生,",
        "B,daily,2026-01-05,visits,1000000000000,paper_later,'-x,recount",
        "H1,hospital_monthly,2026-01,led,,import,operator,",
    ] {
        assert!(lines.contains(&line), "{line}\n{text}");
    }
    assert!(!text.contains("H2,hospital_monthly,2026-01,led"), "not asked, not answered: {text}");
    let empty = Centre::new();
    let taken = empty.import(&text);
    assert!(taken.refused.is_empty(), "{:?}", taken.refused);
    for by in ["facility", "county", "day"] {
        assert_eq!(empty.figures("P", "2026-01", by), centre.figures("P", "2026-01", by), "{by}");
    }
    let (again, second) = empty.export("P", "2026-01", None);
    // To the last cell; only that an operator had corrected there is no correction here.
    let read_in = text.replace(",operator,operator,", ",import,operator,");
    assert_eq!((again.rows, second), (written.rows, read_in));
    // A fold from the disk says the same.
    let figures = centre.figures("P", "2026-01", "facility");
    let centre = centre.again();
    assert_eq!(centre.figures("P", "2026-01", "facility"), figures);
    let report = centre.runtime.block_on(centre.service.verify(true)).unwrap();
    assert!(report.agrees, "{:?}", report.differences);
}

#[test]
fn an_export_is_of_one_set_one_level_and_one_moment() {
    let centre = Centre::new();
    centre.import(&COUNTS.replace("9007199254740991", "8"));
    let (_, kind) = centre.export("P", "2026-01", Some("hospital"));
    assert_eq!(kind.lines().skip(1).filter(|line| !line.starts_with('H')).count(), 0);
    let (county, text) = centre.export("P", "2026-01", Some("county"));
    assert!(text.contains("C1,daily,2026-01-05,visits,20,,,\n"), "{text}");
    assert!(text.contains("C1,daily,2026-01-05,home_visits,NA,,,\n"), "{text}");
    assert!(text.contains("C1,hospital_monthly,2026-01,types_ytd,40,,,\n"), "one gave it: {text}");
    assert!(county.not_additive.is_empty());
    let (province, text) = centre.export("P", "2026-01", Some("province"));
    assert_eq!(province.not_additive, ["types_ytd"]);
    assert!(!text.contains("types_ytd"), "{text}");
    let (_, network) = centre.export("L2", "2026-01", None);
    assert!(network.contains("A,daily,2026-01-05") && !network.contains("B,daily"), "{network}");
    for (unit, period, level, part) in [
        ("诊所", "2026-01", None, "does not name one thing"),
        ("P", "2026-13", None, "2026-13"),
        ("P", "2026-01", Some("clinics"), "there are facility, province"),
    ] {
        let call = ExportCall {
            unit: unit.into(),
            period: period.into(),
            level: level.map(Into::into),
            path: centre.dir.path().join("no.csv").display().to_string(),
            lang: Lang::En,
            ..ExportCall::default()
        };
        let error = format!("{:#}", centre.service.export_counts(&call).unwrap_err());
        assert!(error.contains(part), "{error}");
        assert!(!centre.dir.path().join("no.csv").exists());
    }
    let before = ExportCall {
        unit: "P".into(),
        period: "2026-01".into(),
        as_of: Some("2026-02-01T00:00:00+08:00".into()),
        path: centre.dir.path().join("before.csv").display().to_string(),
        ..ExportCall::default()
    };
    assert_eq!(centre.service.export_counts(&before).unwrap().rows, 0, "nothing was known then");
}

#[test]
fn what_is_for_the_public_withholds_small_numbers_and_names_nobody() {
    use crate::query::fixture::CATALOGUE;
    let catalogue = CATALOGUE.replace(
        "code = \"home_visits\"\nunit",
        "code = \"home_visits\"\nwithhold_below = 5\nunit",
    );
    assert_ne!(catalogue, CATALOGUE);
    let centre = Centre::of(&catalogue);
    let mut counts = "facility,form,period,element,value,how,entered_by,reason\n".to_owned();
    for (unit, visits, home) in
        [("A", 3, 2), ("B", 40, 30), ("M", 9, 7), ("N", 1, 0), ("D", 2, 1), ("K", 1, 1)]
    {
        let day = if unit == "N" { "2026-01-29" } else { "2026-01-05" };
        counts += &format!("{unit},daily,{day},visits,{visits},direct,W01,\n");
        counts += &format!("{unit},daily,{day},home_visits,{home},direct,W01,\n");
    }
    centre.import(&counts);
    let export = |level: Option<&str>| {
        let path = centre.dir.path().join("public.csv").display().to_string();
        let call = ExportCall {
            unit: "P".into(),
            period: "2026-01".into(),
            level: level.map(Into::into),
            public: true,
            path: path.clone(),
            ..ExportCall::default()
        };
        let written = centre.service.export_counts(&call).unwrap();
        (written, std::fs::read_to_string(path).unwrap())
    };
    let (written, text) = export(None);
    assert!(written.sites);
    // Of township one A's and the least of the others'; D's and K's are alone in their townships.
    let hidden: Vec<&str> = text.lines().filter(|line| line.contains(",*,")).collect();
    assert_eq!(
        hidden,
        [
            "A,daily,2026-01-05,home_visits,*,,,",
            "K,daily,2026-01-05,home_visits,*,,,",
            "D,daily,2026-01-05,home_visits,*,,,",
            "M,daily,2026-01-05,home_visits,*,,,",
        ],
        "{text}"
    );
    assert_eq!(written.withheld, 4);
    assert!(
        text.contains("A,daily,2026-01-05,visits,3,,,"),
        "only what the catalogue says: {text}"
    );
    assert!(
        text.contains("N,daily,2026-01-29,home_visits,0,,,"),
        "zero is no small number: {text}"
    );
    assert!(!text.contains("W01"), "{text}");
    // Sums: T2's 1 goes with T1's 39, or the county's 40 would tell it.
    let (sums, text) = export(Some("township"));
    assert!(!sums.sites);
    for line in ["T1,daily,2026-01-05,home_visits,*", "T2,daily,2026-01-05,home_visits,*"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let (county, text) = export(Some("county"));
    assert!(text.contains("C1,daily,2026-01-05,home_visits,*"), "beside county two's 1: {text}");
    assert_eq!(county.withheld, 2);
}

impl Centre {
    fn stage(&self, stage: Stage, unit: &str, form: &str, period: &str) -> Staged {
        let call = StageCall {
            unit: unit.into(),
            form: form.into(),
            period: period.into(),
            ..StageCall::default()
        };
        self.runtime.block_on(self.service.stage("operator", stage, call)).unwrap()
    }

    fn decision(&self, facility: &str, form: &str, period: &str) -> DecisionCall {
        DecisionCall {
            facility: facility.into(),
            form: form.into(),
            period: period.into(),
            reason: "recount".into(),
            by: Some("W09".into()),
            ..DecisionCall::default()
        }
    }

    fn answer(&self, unit: &str) -> crate::query::QueryAnswer {
        let call = crate::service::QueryCall {
            unit: unit.into(),
            period: "2026-01".into(),
            ..Default::default()
        };
        self.service.figures(&call).unwrap()
    }
}

#[test]
fn figures_say_how_far_their_review_has_come_and_whether_they_were_restated() {
    let centre = Centre::new();
    centre.import(&COUNTS.replace("9007199254740991", "8"));
    let said = |unit: &str| {
        let answer = centre.answer(unit);
        (answer.stage, answer.provisional, answer.restated, answer.pending_after_lock)
    };
    let open = ("open".to_owned(), true, false, 0);
    assert_eq!(said("A"), open);
    let signed = centre.stage(Stage::Signed, "T1", "daily", "2026-01");
    assert!(signed.saved && signed.answered == 4 && signed.covered > 60, "{signed:?}");
    assert_eq!(said("A"), open, "its monthly report is not signed off");
    centre.stage(Stage::Signed, "A", "monthly", "2026-01");
    assert_eq!(said("A"), ("signed".to_owned(), true, false, 0));
    assert_eq!(said("B"), open);
    centre.correct("A", "daily", "2026-01-05", "visits=14");
    assert_eq!(said("A"), ("signed".to_owned(), true, true, 0));
    for form in ["daily", "monthly"] {
        centre.stage(Stage::Locked, "A", form, "2026-01");
    }
    assert_eq!(said("A"), ("locked".to_owned(), false, true, 0));
    let waits = centre.correct("A", "daily", "2026-01-06", "visits=9");
    assert!(waits.pending);
    assert_eq!(said("A"), ("locked".to_owned(), false, true, 1));
    let approve = centre.service.approve("operator", centre.decision("A", "daily", "2026-01-06"));
    let approved = centre.runtime.block_on(approve).unwrap();
    assert_eq!(approved.changes[0].after, TraceValue::Number(9));
    assert_eq!(said("A").3, 0);
    // Returned: missing for that reason, until it is entered again.
    let missing = || centre.answer("D").completeness.missing_why.returned;
    centre.correct("D", "daily", "2026-01-07", "visits=2");
    let place = centre.decision("D", "daily", "2026-01-07");
    let returned =
        centre.runtime.block_on(centre.service.return_report("operator", place)).unwrap();
    assert_eq!(returned.changes[0].before, TraceValue::Number(2));
    assert_eq!(missing(), 1);
    let call = crate::service::ReportCall {
        facility: "D".into(),
        form: "daily".into(),
        period: "2026-01-07".into(),
        history: true,
        ..Default::default()
    };
    let trace = centre.service.trace(&call).unwrap();
    assert_eq!((trace.missing_why.as_deref(), trace.returned), (Some("returned"), true));
    let [decision] = &trace.decisions[..] else { panic!("{trace:?}") };
    assert_eq!((&*decision.decision, &*decision.by), ("returned", "W09"));
    assert_eq!(decision.reason.as_deref(), Some("recount"));
    centre.correct("D", "daily", "2026-01-07", "visits=3");
    assert_eq!(missing(), 0);
    // Folded again from the disk.
    let before: Vec<_> =
        ["A", "B", "D"].map(|unit| serde_json::to_value(centre.answer(unit)).unwrap()).into();
    let centre = centre.again();
    let after: Vec<_> =
        ["A", "B", "D"].map(|unit| serde_json::to_value(centre.answer(unit)).unwrap()).into();
    assert_eq!(after, before);
    assert!(centre.runtime.block_on(centre.service.verify(true)).unwrap().agrees);
}
