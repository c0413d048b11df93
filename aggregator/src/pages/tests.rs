use banyan_shared::ids::{AgentId, Epoch, VersionId};
use banyan_shared::report::{Content, EnteredAt, How, Value};

use super::*;
use crate::cube::AcceptedVersion;
use crate::query::fixture::{CATALOGUE, MEMBERS, NETWORKS, UNITS, number};
use crate::service::Running;

const XSS: &str = "<script>alert(1)</script>";

/// Indicators for the fixture's country: with a target, one of an area, one of a single facility.
const INDICATORS: &str = r#"
[[unit]]
code = "percent"
name = { zh = "%", en = "%" }
[[indicator]]
code = "clinic_share"
name = { zh = "诊所占比", en = "Share of clinics" }
unit = "percent"
direction = "up"
decimals = 1
levels = ["county", "community"]
source = "test"
[[indicator.definition]]
version = "1"
kind = "ratio"
numerator = "visits[kind=clinic]"
denominator = "visits"
factor = 100
[[indicator]]
code = "payer_share"
name = { zh = "医保占比", en = "Share of the payer" }
unit = "percent"
direction = "down"
decimals = 1
levels = ["county", "community"]
source = "test"
[[indicator.definition]]
version = "1"
kind = "ratio"
numerator = "payer_visits"
denominator = "payer_visits"
factor = 100
[[indicator]]
code = "home_share"
name = { zh = "出诊占比", en = "Share of home visits" }
unit = "percent"
direction = "watch"
decimals = 2
levels = ["facility"]
source = "test"
[[indicator.definition]]
version = "1"
kind = "ratio"
numerator = "home_visits"
denominator = "visits[kind=clinic]"
factor = 100
"#;
const TARGETS: &str = "\
indicator,unit,level,attribute,direction,low,high,from,to,source,status
clinic_share,,county,,up,65,,2020-01-01,,标准 <70>,official
";

struct Centre {
    service: Arc<Service>,
    site: Site,
    _running: Running,
    _runtime: tokio::runtime::Runtime,
    next: u64,
    _dir: tempfile::TempDir,
}

impl Centre {
    /// A centre on 10 February 2026 with the fixture's registry and these further units.
    fn new(more_units: &str) -> Centre {
        Centre::with(more_units, CATALOGUE, "")
    }

    /// The same with indicators and targets.
    fn with_indicators() -> Centre {
        Centre::with("", &format!("{CATALOGUE}{INDICATORS}"), TARGETS)
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
        Centre { service, site, _running: running, _runtime: runtime, next: 1, _dir: dir }
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
fn the_usual_period_is_the_last_whole_month_with_data() {
    let mut centre = Centre::new("");
    assert!(centre.place("C1", "", "zh").1.contains("<b>2026-02</b>"));
    centre.put("A", "daily", "2025-12-05", &["7", ""], "");
    assert!(centre.place("C1", "", "zh").1.contains("<b>2025-12</b>"));
}

#[test]
fn names_are_shown_as_text_and_long_lists_are_turned_like_pages() {
    let mut units = format!("Z0,{XSS},clinic,T3,,,,,\n");
    for n in 1..=700 {
        let name = "很长的名称".repeat(8);
        units.push_str(&format!("Z{n},{name}{n},clinic,T3,,,,,\n"));
    }
    let centre = Centre::new(&units);
    let params = |from: &str| Params {
        period: Some("2026-01".into()),
        from: Some(from.into()),
        ..Params::default()
    };
    let (status, first) = centre.get(params("0"), |view| place::page(view, "T3"));
    assert_eq!(status, 200);
    assert!(first.contains("&lt;script&gt;") && !first.contains(XSS));
    assert!(first.contains("from=100") && !first.contains("title=\"Z400\""), "{}", first.len());
    let (status, last) = centre.get(params("620"), |view| place::page(view, "T3"));
    assert!(status == 200 && last.contains("title=\"Z700\"") && !last.contains("from=800"));
    let (status, beyond) = centre.get(params("100000"), |view| place::page(view, "T3"));
    assert!(status == 200 && beyond.contains("/ 702"), "{}", beyond.len());
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
fn the_first_screen_has_the_figures_with_a_target_their_trend_and_reasons() {
    let mut centre = Centre::with_indicators();
    for day in 1..=31 {
        let day = format!("2026-01-{day:02}");
        for clinic in ["A", "B", "M"] {
            centre.put(clinic, "daily", &day, &["10", "2"], "张");
        }
    }
    let (status, html) = centre.place("C1", "2026-01", "zh");
    assert_eq!(status, 200);
    let (first, rest) = html.split_once("id=\"indicators\"").expect("there are indicators");
    // The hospital's month is overdue: a share without it would be 100 %.
    for text in ["诊所占比", "缺报：医院全部未报", "≥ 65%", "（正式）", "标准 &lt;70&gt;"]
    {
        assert!(first.contains(text), "{text} in {first}");
    }
    // The desk's is not due yet.
    for text in ["等待一县统计岗县月报（2026-02-15 23:59 截止）", "下一截止", "越低越好"]
    {
        assert!(first.contains(text), "{text} in {first}");
    }
    assert!(first.find("诊所占比") < first.find("医保占比"), "targets come first: {first}");
    assert!(rest.contains("标准 &lt;70&gt;") && !rest.contains("出诊占比"), "{rest}");
    let show = [("period", "2026-01"), ("show", "home_share")];
    let (_, html) = centre.open(&show, &["place", "C1"]);
    assert!(html.contains("本级不显示：只在以下层级显示：机构"), "{html}");

    centre.put("H1", "hospital_monthly", "2026-01", &["90", "20", "3", "1"], "李");
    let (_, html) = centre.place("C1", "2026-01", "zh");
    let (first, rest) = html.split_once("id=\"indicators\"").expect("there are indicators");
    for text in
        ["<b>91.2</b>", "√ 达标", "<svg class=\"trend\"", "2025-01 ", "2026-01 91.2", "#D55E00"]
    {
        assert!(first.contains(text), "{text} in {first}");
    }
    assert!(rest.contains("930 / 1 020") || rest.contains("930 / 1\u{202f}020"), "{rest}");
    // By parts of the place.
    let show = [("period", "2026-01"), ("show", "clinic_share")];
    let (_, html) = centre.open(&show, &["place", "P"]);
    assert!(html.contains(">诊所占比</th>") && html.contains("91.2"), "{html}");
    // Of a facility: what is meant for facilities.
    let (_, html) = centre.place("A", "2026-01", "en");
    let (first, _) = html.split_once("id=\"indicators\"").expect("there are indicators");
    assert!(first.contains("Share of home visits") && first.contains("<b>20.00</b>"), "{first}");
    assert!(!first.contains("Share of clinics"), "{first}");
}

#[test]
fn a_trend_is_kept_for_a_while_and_ends_with_the_value_of_now() {
    let mut centre = Centre::new("");
    centre.put("A", "daily", "2025-12-05", &["7", ""], "张");
    centre.put("A", "daily", "2026-01-05", &["8", ""], "张");
    let trend = |centre: &Centre| {
        let html = centre.place("C1", "2026-01", "zh").1;
        let words = html.split("<title>诊疗人次: ").nth(1).unwrap().split("</title>").next();
        words.unwrap().to_owned()
    };
    assert!(trend(&centre).ends_with("2025-12 7; 2026-01 8"), "{}", trend(&centre));
    centre.put("B", "daily", "2025-12-05", &["10", ""], "乙");
    centre.put("B", "daily", "2026-01-05", &["10", ""], "乙");
    assert!(trend(&centre).ends_with("2025-12 7; 2026-01 18"), "{}", trend(&centre));
    // Another registry makes it anew.
    {
        let mut state = centre.service.state().write();
        state.organisation = Arc::new((*state.organisation).clone());
    }
    assert!(trend(&centre).ends_with("2025-12 17; 2026-01 18"), "{}", trend(&centre));
}

#[test]
fn without_indicators_elements_come_first() {
    let mut centre = Centre::new("");
    centre.put("A", "daily", "2026-01-05", &["7", ""], "张");
    let (_, html) = centre.place("C1", "2026-01", "zh");
    let (first, _) = html.split_once("id=\"parts\"").expect("there are parts");
    assert!(first.contains("重点指标") && first.contains("诊疗人次"), "{first}");
    assert!(
        first.contains("<svg class=\"trend\"") && !html.contains("id=\"indicators\""),
        "{first}"
    );
}

#[test]
fn an_empty_centre_says_that_nothing_has_come_in() {
    let centre = Centre::with_indicators();
    for (place, lang, text) in [
        ("C1", "zh", "本期尚未收到任何报表"),
        ("G1", "zh", "近 13 个月无数据"),
        ("P", "en", "no report of this period has come in"),
        ("L2", "en", "no report of this period has come in"),
    ] {
        for period in ["2026-01", "2026-02", "2025", "2026-01..2026-02"] {
            let (status, html) = centre.place(place, period, lang);
            assert_eq!(status, 200, "{place} {period}: {html}");
            assert!(html.contains(text), "{text} in {html}");
            assert!(!html.contains("NaN") && !html.contains("inf%"), "{html}");
        }
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
fn the_map_and_the_moment_go_with_every_link_and_are_told() {
    let mut centre = Centre::new("");
    centre.put("A", "daily", "2026-01-05", &["7", ""], "张");
    let asked = [("period", "2026-01"), ("map", "today"), ("as_of", "2026-01-31 08:00")];
    let (status, html) = centre.open(&asked, &["place", "C1"]);
    assert_eq!(status, 200);
    assert!(
        html.contains("按 2026-01-31 的归属") && html.contains("只用 2026-01-31 08:00"),
        "{html}"
    );
    // What came in on 1 February was not known then; what is due next is no question of the past.
    assert!(html.contains("本期尚未收到任何报表") && !html.contains("下一截止"), "{html}");
    let kept = "map=today&amp;as_of=2026-01-31T08%3A00%3A00%2B08%3A00";
    for link in ["/place/T1?period=2026-01&amp;", "/place/P?period=2026-01&amp;"] {
        assert!(html.contains(&format!("{link}{kept}")), "{link} in {html}");
    }
    // Back to the usual.
    assert!(html.contains("<a href=\"/place/C1?period=2026-01\">恢复默认"), "{html}");
    let day = [("period", "2026-04"), ("map", "date"), ("day", "2026-02-10"), ("lang", "en")];
    let (status, html) = centre.open(&day, &["place", "T1"]);
    assert_eq!(status, 200);
    assert!(html.contains("on the map of 2026-02-10") && html.contains("/place/M?"), "{html}");
    for (name, value) in [("map", XSS), ("as_of", XSS), ("as_of", "2026-02-31"), ("map", "date")] {
        let (status, html) = centre.open(&[("period", "2026-01"), (name, value)], &["place", "C1"]);
        assert!(status == 400 && !html.contains(XSS), "{name} {value}: {html}");
    }
    // What may have been meant is no reason to fail.
    for name in ["show", "groups", "kind", "from", "day"] {
        let (status, html) = centre.open(&[("period", "2026-01"), (name, XSS)], &["place", "C1"]);
        assert!(status == 200 && !html.contains(XSS), "{name}: {html}");
    }
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
fn every_line_of_a_reconciliation_leads_to_its_facilities() {
    let mut centre = Centre::new("");
    centre.put("A", "daily", "2026-01-05", &["7", ""], "张");
    centre.put("B", "daily", "2026-01-05", &["3", ""], "乙");
    centre.put("D", "daily", "2026-01-05", &["5", ""], "丁");
    let (_, html) = centre.open(
        &[("period", "2026-01"), ("groups", "alliance"), ("show", "visits")],
        &["place", "C1"],
    );
    for which in ["groups", "repeated", "outside", "none", "total"] {
        let link = format!("/list/C1/{which}?period=2026-01&amp;groups=alliance&amp;show=visits");
        assert!(html.contains(&link), "{link} in {html}");
    }
    assert!(html.contains("show=visits&amp;kind=clinic"), "by kind: {html}");
    let list = |which: &str, more: &[(&str, &str)]| {
        let asked = [("period", "2026-01"), ("groups", "alliance"), ("show", "visits")];
        centre.open(&[&asked, more].concat(), &["list", "C1", which])
    };
    let listed = |html: &str| -> Vec<String> {
        let codes = ["A", "B", "D", "K", "M", "N", "H1", "H2", "X"];
        let is = |code: &&&str| html.contains(&format!("/place/{code}?"));
        codes.iter().filter(is).map(|code| (*code).to_owned()).collect()
    };
    let codes = |which: &str| {
        let (status, html) = list(which, &[]);
        assert_eq!(status, 200, "{html}");
        listed(&html)
    };
    assert_eq!(codes("groups"), ["A", "D", "H1"]);
    assert_eq!(codes("repeated"), ["A"]);
    assert_eq!(codes("outside"), ["D"]);
    assert_eq!(codes("none"), ["B", "M", "N"]);
    assert_eq!(codes("total"), ["A", "B", "M", "N", "H1"]);
    let (_, html) = list("outside", &[]);
    assert!(html.contains(">5</span>"), "the value of a facility outside: {html}");
    // A is in both alliances: 7 twice in their sum, once too often.
    for (which, sum) in
        [("groups", 19), ("repeated", 7), ("outside", 5), ("none", 3), ("total", 10)]
    {
        let (_, html) = list(which, &[]);
        assert!(html.contains(&format!("诊疗人次：<b>{sum}</b>")), "{which} {sum}: {html}");
    }
    let (_, html) = list("total", &[("kind", "hospital")]);
    assert_eq!(listed(&html), ["H1"]);
    assert_eq!(list("most", &[]).0, 400);
    assert_eq!(centre.open(&[("period", "2026-01")], &["list", "G1", "none"]).0, 400);
    assert_eq!(centre.open(&[("period", "2026-01")], &["list", "nowhere", "none"]).0, 404);
    let (status, html) = centre.open(&[("period", "2026-01")], &["list", "C1", "none"]);
    assert!(status == 200 && html.contains("没有这样的机构"), "{html}");
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
