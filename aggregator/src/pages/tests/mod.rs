//! The pages over a small country, as a browser gets them.

mod figures;
mod lists;
mod past;

use banyan_shared::ids::{AgentId, Epoch, VersionId};
use banyan_shared::report::{Content, EnteredAt, How, Reason, Value};

use super::*;
use crate::act::Stage;
use crate::cube::AcceptedVersion;
use crate::query::fixture::{CATALOGUE, MEMBERS, NETWORKS, UNITS, number};
use crate::service::{DecisionCall, GivenTable, ImportUnits, Running, StageCall};

const XSS: &str = "<script>alert(1)</script>";

struct Centre {
    service: Arc<Service>,
    site: Site,
    _running: Running,
    runtime: tokio::runtime::Runtime,
    next: u64,
    _dir: tempfile::TempDir,
}

impl Centre {
    /// A centre on 10 February 2026 with the fixture's registry and these further units.
    fn new(more_units: &str) -> Centre {
        Centre::with(more_units, CATALOGUE, "")
    }

    fn with(more_units: &str, catalogue: &str, targets: &str) -> Centre {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("data");
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let mut sources = crate::init::Sources {
            catalogue: Some(write("catalogue.toml", catalogue)),
            tables: vec![
                ("units.csv", write("units.csv", &format!("{UNITS}{more_units}"))),
                ("networks.csv", write("networks.csv", NETWORKS)),
                ("members.csv", write("members.csv", MEMBERS)),
            ],
        };
        if !targets.is_empty() {
            sources.tables.push(("targets.csv", write("targets.csv", targets)));
        }
        let catalogue = crate::query::fixture::catalogue();
        let at = |day: &str| catalogue.moment(day.parse().unwrap(), 9, 0);
        // Founded before anything is asked of the past.
        crate::init::init_at(&home, &sources, "县中心", Lang::Zh, at("2025-12-01")).unwrap();
        let now = at("2026-02-10");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let clock = Arc::new(move || now);
        let (service, running) = runtime.block_on(Service::open(&home, clock, None)).unwrap();
        let site = Site::new(service.clone());
        Centre { service, site, _running: running, runtime, next: 1, _dir: dir }
    }

    fn put(&mut self, facility: &str, form: &str, period: &str, values: &[&str], by: &str) {
        self.put_from(7, facility, form, period, values, by);
    }

    fn put_from(
        &mut self,
        writer: u8,
        facility: &str,
        form: &str,
        period: &str,
        values: &[&str],
        by: &str,
    ) {
        let mut state = self.service.state().write();
        let catalogue = state.catalogue.clone();
        let received_at = catalogue.moment("2026-02-01".parse().unwrap(), 8, 0);
        let version = AcceptedVersion {
            facility: facility.parse().unwrap(),
            form: catalogue.form(form).unwrap(),
            period: period.parse().unwrap(),
            id: VersionId {
                writer: AgentId([writer; 6]),
                epoch: Epoch { counter: 1, random: 1 },
                seq: self.next,
            },
            content: Content {
                values: values.iter().map(|text| number(text)).collect::<Vec<Value>>(),
                how: How::Direct,
                entered_by: Some(by.to_owned()),
                reason: None,
                override_code: None,
                withdrawn: false,
                entered_at: EnteredAt { minute: received_at.minute(), doubtful: false },
                replaces: vec![],
            },
            received_at,
            position: self.next,
        };
        self.next += 1;
        state.cube.apply(&catalogue, version).unwrap();
    }

    /// Puts a table in force.
    fn import(&self, file: &str, text: &str) {
        let table = GivenTable {
            file: file.to_owned(),
            bytes: data_encoding::BASE64.encode(text.as_bytes()),
        };
        let call = ImportUnits {
            tables: vec![table],
            apply: true,
            months: Some(Vec::new()),
            ..ImportUnits::default()
        };
        let report = self.runtime.block_on(self.service.import_units("admin", call)).unwrap();
        assert!(report.applied && !report.changes.is_empty(), "{report:?}");
    }

    fn get(
        &self,
        params: Params,
        make: impl FnOnce(&View<'_>) -> Result<Page, Problem>,
    ) -> (u16, String) {
        match page(&self.site, &Who::server(), &params, make) {
            Page::Html(status, html) => {
                assert!(html.len() <= PAGE_BYTES_MAX, "{}", html.len());
                assert!(!html.contains("http://") && !html.contains("https://"), "{html}");
                (status.as_u16(), html)
            }
            Page::Elsewhere(to) => (303, to),
        }
    }

    /// A page by its address, as a browser asks for it.
    fn open(&self, params: &[(&str, &str)], path: &[&str]) -> (u16, String) {
        let value = |name: &str| {
            params.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        };
        let params = Params {
            period: value("period"),
            lang: value("lang"),
            show: value("show"),
            groups: value("groups"),
            from: value("from"),
            q: value("q"),
            map: value("map"),
            day: value("day"),
            as_of: value("as_of"),
            kind: value("kind"),
        };
        let path: Vec<String> = path.iter().map(|part| (*part).to_owned()).collect();
        self.get(params, move |view| match &path[..] {
            [what, code] if what == "place" => place::page(view, code),
            [what, code, which] if what == "list" => list::page(view, code, which),
            [what, position] if what == "batch" => batch::page(view, position),
            [what, facility, form, period] if what == "report" => {
                report::page(view, facility, form, period)
            }
            _ => home::page(view),
        })
    }

    fn place(&self, code: &str, period: &str, lang: &str) -> (u16, String) {
        let params = Params {
            period: Some(period.to_owned()).filter(|p| !p.is_empty()),
            lang: Some(lang.to_owned()),
            ..Params::default()
        };
        self.get(params, |view| place::page(view, code))
    }
}

#[test]
fn a_county_page_gives_values_or_reasons_and_the_parts_of_what_was_expected() {
    let mut centre = Centre::new("");
    centre.put("A", "daily", "2026-01-05", &["1234", ""], "张");
    centre.put("A", "monthly", "2026-01", &["0", ""], "张");
    let (status, zh) = centre.place("C1", "2026-01", "zh");
    assert_eq!(status, 200);
    for text in [
        "<h1>一县 ",
        "2026-01",
        "数据截至",
        "2026-02-01 08:00",
        "应报报表",
        "按时",
        "缺报原因",
        "未注册",
        "1 234",
        "诊疗人次",
        "一镇",
        "/place/T1?period=2026-01",
        "一县医共体",
        "行政合计",
        "未入任何网络",
    ] {
        assert!(zh.contains(text), "{text} in {zh}");
    }
    // A zero is a zero, what is missing has a reason and no number.
    let row = |code: &str| {
        let rows = zh.split("<tr>").filter(|row| row.contains(&format!("<td title=\"{code}\">")));
        rows.last().unwrap_or_else(|| panic!("{code} is listed")).to_owned()
    };
    assert!(row("beds").contains("<span class=\"big\">0</span>"), "{}", row("beds"));
    let led = row("home_visits");
    assert!(led.contains("—") && led.contains("缺报：") && !led.contains("class=\"big\""), "{led}");
    let (status, en) = centre.place("C1", "2026-01", "en");
    assert_eq!(status, 200);
    for text in [
        "<h1>County One ",
        "Data until",
        "Reports expected",
        "Missing because",
        "administrative total",
        "lang=en",
    ] {
        assert!(en.contains(text), "{text} in {en}");
    }
}

#[test]
fn a_network_page_lists_members_with_their_roles() {
    let mut centre = Centre::new("");
    centre.put("H1", "hospital_monthly", "2026-01", &["50", "20", "3", "1"], "李");
    let (status, html) = centre.place("G1", "2026-01", "zh");
    assert_eq!(status, 200);
    for text in
        ["一县医共体", "成员", "牵头", "一县医院", "甲诊所", "/place/H1", "groups=community"]
    {
        assert!(html.contains(text), "{text} in {html}");
    }
    let (status, html) = centre.place("L2", "2026-01", "zh");
    assert_eq!(status, 200);
    assert!(html.contains("外省医院") && html.contains("本期无应报报表"), "{html}");
}

#[test]
fn a_facility_page_leads_to_the_trace_of_its_reports() {
    let mut centre = Centre::new("");
    centre.put("A", "daily", "2026-01-05", &["7", ""], XSS);
    let (status, html) = centre.place("A", "2026-01", "zh");
    assert_eq!(status, 200);
    for text in ["本期报表", "/report/A/daily/2026-01-05", "缺报", "联盟一", "日报"] {
        assert!(html.contains(text), "{text} in {html}");
    }
    let trace = |period: &'static str| {
        centre.get(Params::default(), move |view| report::page(view, "A", "daily", period))
    };
    let (status, html) = trace("2026-01-05");
    assert_eq!(status, 200);
    for text in ["日报 · 2026-01-05", "计入", "账本第 1 位", "录入", "&lt;script&gt;", "诊疗人次"]
    {
        assert!(html.contains(text), "{text} in {html}");
    }
    assert!(!html.contains(XSS));
    let (status, html) = trace("2026-01-06");
    assert!(status == 200 && html.contains("没有收到过任何版本"), "{html}");
    assert_eq!(trace("2026-01").0, 400);
    assert_eq!(trace("2026-02-31").0, 400);
}

#[test]
fn unknown_places_and_periods_are_told_with_what_may_be_meant() {
    let centre = Centre::new("520502105001-VC,远诊所,clinic,T1,,,,,\n");
    let (status, html) = centre.place("诊所", "2026-01", "zh");
    assert_eq!(status, 404);
    assert!(html.contains("甲诊所") && html.contains("/place/B?period=2026-01"), "{html}");
    let (status, html) = centre.place("520502105999-vc", "", "en");
    assert_eq!(status, 404);
    assert!(html.contains("520502105001-VC") && html.contains("Did you mean"), "{html}");
    let (status, html) = centre.place(XSS, "2026-01", "zh");
    assert_eq!(status, 404);
    assert!(html.contains("&lt;script&gt;") && !html.contains(XSS));
    let (status, html) = centre.place("C1", "2026-02-31", "zh");
    assert!(status == 400 && html.contains("2026-02-31"), "{html}");
    assert_eq!(centre.place("C1", XSS, "zh").0, 400);
    assert_eq!(centre.place("G2", "2026-01", "zh").0, 400);
}

#[test]
fn the_home_page_leads_to_places_and_finds_them() {
    let centre = Centre::new("");
    let (status, html) = centre.get(Params::default(), home::page);
    assert_eq!(status, 200);
    for text in ["县中心", "/place/C1", "/place/T1", "/place/G1", "/place/L1", "name=\"q\""] {
        assert!(html.contains(text), "{text} in {html}");
    }
    let find = |q: &str| {
        let q = Some(q.to_owned());
        centre.get(Params { q, ..Params::default() }, home::page)
    };
    assert_eq!(find("甲诊所"), (303, "/place/A".into()));
    assert_eq!(find(" G1 "), (303, "/place/G1".into()));
    assert_eq!(find("诊所").0, 404);
}

#[test]
fn the_trace_of_a_report_tells_its_review_and_what_was_decided() {
    let mut centre = Centre::new("");
    centre.put("A", "daily", "2026-01-05", &["7", ""], "张");
    let trace =
        |lang: &str| centre.open(&[("lang", lang)], &["report", "A", "daily", "2026-01-05"]).1;
    assert!(trace("zh").contains("未审核") && !trace("zh").contains("各项决定"), "{}", trace("zh"));
    let stage = StageCall {
        unit: "T1".into(),
        form: "daily".into(),
        period: "2026-01".into(),
        by: Some("w01".into()),
        ..StageCall::default()
    };
    let locked = centre.service.stage("admin", Stage::Locked, stage);
    assert!(centre.runtime.block_on(locked).unwrap().saved);
    let returned = DecisionCall {
        facility: "A".into(),
        form: "daily".into(),
        period: "2026-01-05".into(),
        reason: "typo".into(),
        by: Some("w02".into()),
        ..DecisionCall::default()
    };
    centre.runtime.block_on(centre.service.return_report("admin", returned)).unwrap();
    let html = trace("zh");
    for text in [
        "已锁定 · <span class=\"part\">签核后已修订",
        "已退回，重新录入或批准后计入",
        "各项决定",
        "w01",
        "w02",
        "/place/T1?period=2026-01-05",
        ">一镇</a>",
        "本报表",
        Reason::Typo.text(Lang::Zh),
    ] {
        assert!(html.contains(text), "{text} in {html}");
    }
    let en = trace("en");
    for text in ["locked · ", "restated", "returned: counts once", "Decisions", "this report"] {
        assert!(en.contains(text), "{text} in {en}");
    }
}

#[test]
fn two_versions_side_by_side_are_shown_as_a_conflict_at_every_step() {
    let mut centre = Centre::new("");
    centre.put_from(7, "A", "daily", "2026-01-05", &["7", ""], "张");
    centre.put_from(8, "A", "daily", "2026-01-05", &["9", ""], "李");
    assert!(centre.place("C1", "2026-01", "zh").1.contains("冲突报表 1"));
    assert!(centre.place("A", "2026-01", "en").1.contains("conflict"));
    let (_, html) = centre.open(&[], &["report", "A", "daily", "2026-01-05"]);
    assert!(html.contains("2 个版本并存（冲突）") && html.contains("/batch/2"), "{html}");
}

#[test]
fn periods_lead_to_their_neighbours_and_to_longer_ones() {
    let centre = Centre::new("");
    let (_, html) = centre.place("C1", "2026-01", "zh");
    for period in ["2025-12", "2026-02", "2026Q1", "2026S1", "2026"] {
        assert!(html.contains(&format!("/place/C1?period={period}\"")), "{period} in {html}");
    }
    let (_, html) = centre.place("C1", "2026-02", "zh");
    assert!(html.contains("?period=2026-01..2026-02\"") && html.contains("本年累计"), "{html}");
    assert!(!html.contains("2026-03 →"), "the future has no page: {html}");
}

#[test]
fn a_row_of_the_ledger_is_opened_and_its_signature_checked_anew() {
    let centre = Centre::new("");
    let (status, html) = centre.open(&[], &["batch", "1"]);
    assert_eq!(status, 200);
    assert!(html.contains("账本中的一项决定") && html.contains("重新核验，有效"), "{html}");
    for wrong in ["0", "999999", "-1", XSS] {
        let (status, html) = centre.open(&[("lang", "en")], &["batch", wrong]);
        assert!(status == 404 && html.contains("no position") && !html.contains(XSS), "{html}");
    }
}

#[test]
fn the_language_is_declared_and_tables_have_headings() {
    let centre = Centre::new("");
    let (_, zh) = centre.place("C1", "2026-01", "zh");
    let (_, en) = centre.place("C1", "2026-01", "en");
    assert!(zh.contains("<html lang=\"zh-CN\">") && en.contains("<html lang=\"en\">"));
    for html in [&zh, &en] {
        for th in html.split("<th").skip(1).filter(|th| !th.starts_with("ead")) {
            let tag = th.split('>').next().unwrap_or_default();
            assert!(tag.contains("scope=\"col\"") || tag.contains("scope=\"row\""), "<th{tag}>");
        }
        assert!(!html.contains("<script"), "{html}");
    }
}
