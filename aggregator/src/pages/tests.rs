use banyan_shared::ids::{AgentId, Epoch, VersionId};
use banyan_shared::report::{Content, EnteredAt, How, Value};

use super::*;
use crate::cube::AcceptedVersion;
use crate::query::fixture::{CATALOGUE, MEMBERS, NETWORKS, UNITS, number};
use crate::service::Running;

const XSS: &str = "<script>alert(1)</script>";

struct Centre {
    service: Arc<Service>,
    _running: Running,
    _runtime: tokio::runtime::Runtime,
    next: u64,
    _dir: tempfile::TempDir,
}

impl Centre {
    /// A centre on 10 February 2026 with the fixture's registry and these further units.
    fn new(more_units: &str) -> Centre {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("data");
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let sources = crate::init::Sources {
            catalogue: Some(write("catalogue.toml", CATALOGUE)),
            tables: vec![
                ("units.csv", write("units.csv", &format!("{UNITS}{more_units}"))),
                ("networks.csv", write("networks.csv", NETWORKS)),
                ("members.csv", write("members.csv", MEMBERS)),
            ],
        };
        crate::init::init(&home, &sources, "县中心", Lang::Zh).unwrap();
        let catalogue = crate::query::fixture::catalogue();
        let now = catalogue.moment("2026-02-10".parse().unwrap(), 9, 0);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let clock = Arc::new(move || now);
        let (service, running) = runtime.block_on(Service::open(&home, clock, None)).unwrap();
        Centre { service, _running: running, _runtime: runtime, next: 1, _dir: dir }
    }

    fn put(&mut self, facility: &str, form: &str, period: &str, values: &[&str], by: &str) {
        let mut state = self.service.state().write();
        let catalogue = state.catalogue.clone();
        let received_at = catalogue.moment("2026-02-01".parse().unwrap(), 8, 0);
        let version = AcceptedVersion {
            facility: facility.parse().unwrap(),
            form: catalogue.form(form).unwrap(),
            period: period.parse().unwrap(),
            id: VersionId {
                writer: AgentId([7; 6]),
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
        match page(&self.service, &params, make) {
            Page::Html(status, html) => {
                assert!(html.len() <= PAGE_BYTES_MAX, "{}", html.len());
                assert!(!html.contains("http://") && !html.contains("https://"), "{html}");
                (status.as_u16(), html)
            }
            Page::Elsewhere(to) => (303, to),
        }
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
    let beds = &zh[zh.find(">床位<").expect("beds are listed")..][..400];
    assert!(beds.contains("<span class=\"big\">0</span>"), "{beds}");
    let led = &zh[zh.find(">home_visits<").expect("home visits are listed")..][..300];
    assert!(led.contains("— ") && !led.contains("class=\"big\""), "{led}");
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
    assert!(first.contains("from=300") && !first.contains(">Z400<"), "{}", first.len());
    let (status, last) = centre.get(params("600"), |view| place::page(view, "T3"));
    assert!(status == 200 && last.contains(">Z700<") && !last.contains("from=900"));
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
fn only_this_machines_own_names_are_served() {
    for good in ["localhost", "LOCALHOST:8080", "127.0.0.1:80", "[::1]:8080", "127.3.2.1"] {
        assert!(is_loopback(good), "{good}");
    }
    for bad in ["evil.example", "127.0.0.1.evil.example:80", "", "10.0.0.1", "[fe80::1]:1"] {
        assert!(!is_loopback(bad), "{bad}");
    }
}
