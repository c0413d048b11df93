//! Another map, another moment.

use super::*;

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

/// Addresses of links and forms in a page: of each form its `action` and hidden fields.
fn addresses(html: &str) -> Vec<String> {
    let value = |tag: &str, name: &str| -> Option<String> {
        let rest = tag.split(&format!("{name}=\"")).nth(1)?;
        Some(rest.split('"').next()?.replace("&amp;", "&"))
    };
    let links = html.split("<a ").skip(1).filter_map(|tag| value(tag, "href"));
    let mut all: Vec<String> = links.filter(|link| !link.starts_with('#')).collect();
    for form in html.split("<form ").skip(1) {
        let form = form.split("</form>").next().unwrap();
        let fields = form.split("<input ").chain(form.split("<select ")).skip(1);
        let fields = fields.filter_map(|tag| Some((value(tag, "name")?, value(tag, "value"))));
        let fields: Vec<String> =
            fields.map(|(name, value)| format!("{name}={}", value.unwrap_or_default())).collect();
        all.push(format!("{}?{}", value(form, "action").unwrap(), fields.join("&")));
    }
    all
}

#[test]
fn no_link_and_no_form_of_any_page_drops_the_map_or_the_moment() {
    let mut centre = Centre::new("");
    centre.put("A", "daily", "2026-01-05", &["7", ""], "张");
    let kept = [("map", "2026-01-20"), ("as_of", "2026-02-05 08:00")];
    let of_month = [&kept[..], &[("period", "2026-01"), ("show", "visits")]].concat();
    for (path, params) in [
        (&[][..], &kept[..]),
        (&["place", "C1"], &of_month),
        (&["place", "G1"], &of_month),
        (&["place", "A"], &of_month),
        (&["list", "C1", "total"], &of_month),
        (&["report", "A", "daily", "2026-01-05"], &kept),
        (&["batch", "1"], &kept),
        (&["place", "诊所"], &of_month),
    ] {
        let (status, html) = centre.open(params, path);
        assert_eq!(status, if path == ["place", "诊所"] { 404 } else { 200 }, "{path:?}");
        // Back to the usual is what it says.
        let back = html.split("<a ").find(|link| link.contains("恢复默认")).unwrap_or_default();
        let links = addresses(&html.replace(back, ""));
        assert!(links.len() > 3, "{links:?}");
        for link in links {
            assert!(link.contains("map=") && link.contains("as_of="), "{path:?}: {link}");
        }
    }
    // What is looked for is looked for then, and found on that map.
    let (status, to) = centre.open(&[&kept[..], &[("q", "甲诊所")]].concat(), &[]);
    assert_eq!(status, 303);
    assert!(to.starts_with("/place/A?map=2026-01-20&as_of=2026-02-05T08"), "{to}");
}

#[test]
fn a_page_of_a_moment_is_of_the_registry_known_then() {
    let mut centre = Centre::new("");
    centre.put("A", "daily", "2026-01-05", &["7", ""], "张");
    centre.put("B", "daily", "2026-01-05", &["3", ""], "乙");
    let then = [("period", "2026-01"), ("show", "visits"), ("as_of", "2026-02-09 12:00")];
    let line = |params: &[(&str, &str)]| centre.open(params, &["list", "C1", "total"]).1;
    assert!(line(&then).contains("诊疗人次：<b>10</b>"), "{}", line(&then));
    // B was registered by mistake, A is called otherwise.
    let units: Vec<&str> = UNITS.lines().filter(|line| !line.starts_with("B,")).collect();
    centre.import("units.csv", &(units.join("\n").replace("甲诊所", "子诊所") + "\n"));
    let of = |params: &[(&str, &str)], path: &[&str]| centre.open(params, path);
    let now = &then[..2];
    assert!(line(now).contains("诊疗人次：<b>7</b>") && !line(now).contains("/place/B?"));
    let list = line(&then);
    assert!(list.contains("诊疗人次：<b>10</b>") && list.contains("/place/B?"), "{list}");
    assert!(list.contains("甲诊所") && !list.contains("子诊所"), "{list}");
    assert!(list.contains("只用 2026-02-09 12:00"), "told at the top: {list}");
    let (_, township) = of(&then, &["place", "T1"]);
    for text in ["甲诊所", "乙诊所", "/place/B?period=2026-01"] {
        assert!(township.contains(text), "{text} in {township}");
    }
    assert_eq!(of(&then, &["place", "B"]).0, 200);
    assert_eq!(of(now, &["place", "B"]).0, 404);
    let find = |name: &str, more: &[(&str, &str)]| of(&[more, &[("q", name)]].concat(), &[]).0;
    assert_eq!([find("甲诊所", &then), find("子诊所", &then)], [303, 404]);
    assert_eq!([find("甲诊所", &[]), find("子诊所", &[])], [404, 303]);
    let (_, report) = of(&then, &["report", "B", "daily", "2026-01-05"]);
    assert!(report.contains("乙诊所"), "{report}");
    // The usual period of then: nothing of January had come in.
    let (_, html) = of(&[("as_of", "2026-01-31")], &["place", "C1"]);
    assert!(html.contains("<b>2026-01</b>"), "{html}");
}
