//! What stands first: headline figures, their trends, the period shown.

use super::*;

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

/// A centre with indicators and targets.
fn with_indicators() -> Centre {
    Centre::with("", &format!("{CATALOGUE}{INDICATORS}"), TARGETS)
}

#[test]
fn the_usual_period_is_the_last_whole_month_with_data() {
    let mut centre = Centre::new("");
    assert!(centre.place("C1", "", "zh").1.contains("<b>2026-02</b>"));
    centre.put("A", "daily", "2025-12-05", &["7", ""], "");
    assert!(centre.place("C1", "", "zh").1.contains("<b>2025-12</b>"));
}

#[test]
fn the_first_screen_has_the_figures_with_a_target_their_trend_and_reasons() {
    let mut centre = with_indicators();
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
fn a_trend_says_what_is_known_now() {
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
    let centre = with_indicators();
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
fn a_figure_without_a_number_says_why_in_words() {
    let mut centre = with_indicators();
    for day in 1..=31 {
        let day = format!("2026-01-{day:02}");
        centre.put("A", "daily", &day, &["0", "0"], "张");
        centre.put("B", "daily", &day, &["NA", "NA"], "乙");
    }
    let (_, html) = centre.place("A", "2026-01", "zh");
    let (first, _) = html.split_once("id=\"indicators\"").expect("there are indicators");
    assert!(first.contains("出诊占比") && first.contains("分母为零"), "{first}");
    let (_, html) = centre.place("B", "2026-01", "zh");
    assert!(html.contains("应报此项的机构均答“不适用”"), "{html}");
}
