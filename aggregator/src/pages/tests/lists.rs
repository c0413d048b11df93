//! Long lists, and those behind a reconciliation.

use super::*;

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
    // A kind, network or line that there is none of is not every kind's list.
    for (which, wrong) in
        [("most", ("lang", "zh")), ("total", ("kind", "hospitl")), ("total", ("groups", "aliance"))]
    {
        let asked = [("period", "2026-01"), ("show", "visits"), wrong];
        let (status, html) = centre.open(&asked, &["list", "C1", which]);
        assert!(status == 400 && html.contains("；可用："), "{wrong:?}: {html}");
        let (_, html) =
            centre.open(&[&asked[..], &[("lang", "en")]].concat(), &["list", "C1", which]);
        assert!(wrong.0 == "lang" || html.contains("there is no "), "{wrong:?}: {html}");
    }
    assert_eq!(centre.open(&[("period", "2026-01")], &["list", "G1", "none"]).0, 400);
    assert_eq!(centre.open(&[("period", "2026-01")], &["list", "nowhere", "none"]).0, 404);
    let (status, html) = centre.open(&[("period", "2026-01")], &["list", "C1", "none"]);
    assert!(status == 200 && html.contains("没有这样的机构"), "{html}");
}

#[test]
fn a_kinds_list_adds_up_to_its_line_also_after_a_change_of_kind() {
    let mut centre = Centre::new(
        "W,变医院,clinic,T2,,2026-01-16,,,\n\
         W,变医院,hospital,T2,2026-01-16,,,,\n",
    );
    centre.put("W", "daily", "2026-01-05", &["5", ""], "张");
    centre.put("W", "hospital_monthly", "2026-01", &["6", "2", "1", ""], "张");
    for (kind, sum) in [("clinic", 5), ("hospital", 6)] {
        let (status, html) = centre.open(
            &[("period", "2026-01"), ("groups", "alliance"), ("show", "visits"), ("kind", kind)],
            &["list", "C1", "none"],
        );
        assert_eq!(status, 200);
        assert!(html.contains(&format!("诊疗人次：<b>{sum}</b>")), "{kind}: {html}");
        assert!(html.contains("/place/W?"), "{kind}: {html}");
    }
}

#[test]
fn where_there_is_no_reconciliation_the_page_says_why() {
    let mut centre = Centre::new("");
    centre.put("H2", "hospital_monthly", "2026-01", &["100", "50", "9", "7"], "李");
    let shown = |place: &str, show: &str| {
        let asked = [("period", "2026-01"), ("groups", "alliance"), ("show", show)];
        centre.open(&asked, &["place", place]).1
    };
    // Of no group, but of the area.
    let html = shown("C2", "led");
    assert!(html.contains("与行政合计对账") && html.contains("未入任何网络"), "{html}");
    assert!(shown("C2", "types_ytd").contains("各机构的数不能相加，没有对账"));
    assert!(shown("C1", "payer_visits").contains("县级填报的数属于整个辖区"));
}
