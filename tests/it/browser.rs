//! The pages in a real browser: a report goes from a real agent to a real aggregator and is read by Chromium.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use banyan_tests::binaries;
use serde_json::Value;

/// How long the aggregator may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A process that ends with its owner.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a command writes to stdout; it must succeed.
fn out(command: &mut Command) -> String {
    let output = command.env_remove("BANYAN_LANG").output().unwrap();
    let (text, error) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {text}{error}");
    text
}

/// A browser of its own at an address, with these switches as well; what it writes to stdout.
fn browse(url: &str, switches: &[String]) -> String {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new("chromium");
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        // A county's network leads nowhere else.
        .arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
        .arg(format!("--user-data-dir={}", home.path().display()))
        .args(switches)
        .arg(url);
    out(&mut command)
}

/// What a page asked for by itself, by the browser's own log: pictures, styles, fonts, programs. What the
/// browser asks for on its own behalf has no origin.
fn asked_by_page(log: &Path) -> Vec<String> {
    let log: Value = serde_json::from_slice(&std::fs::read(log).unwrap()).unwrap();
    let start = &log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"];
    assert!(start.is_number(), "the log names its events");
    let events = log["events"].as_array().unwrap().iter().filter(|event| event["type"] == *start);
    events
        .map(|event| &event["params"])
        .filter(|params| params["initiator"].as_str().is_some_and(|by| by != "not an origin"))
        .filter_map(|params| params["url"].as_str().map(str::to_owned))
        .collect()
}

/// The page as the browser has it after loading; it must have asked nobody for anything more.
fn page(url: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("net.json");
    let html = browse(url, &["--dump-dom".to_owned(), format!("--log-net-log={}", log.display())]);
    assert_eq!(asked_by_page(&log), [""; 0], "{url} is whole by itself");
    html
}

/// The picture of a page at a window's size.
fn picture(url: &str, width: u32, height: u32) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("page.png");
    let size = format!("--window-size={width},{height}");
    browse(url, &[size, format!("--screenshot={}", file.display())]);
    std::fs::read(&file).unwrap()
}

/// The first link in the page that begins so.
fn link(html: &str, beginning: &str) -> String {
    let mut links = html.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
    let found = links.find(|link| link.starts_with(beginning));
    found.unwrap_or_else(|| panic!("no link to {beginning} in {html}")).replace("&amp;", "&")
}

#[test]
fn the_browsers_log_shows_what_a_page_asks_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("page.html");
    std::fs::write(&file, "<img src=\"http://elsewhere.example/x.png\">").unwrap();
    let log = folder.path().join("net.json");
    let switches = ["--dump-dom".to_owned(), format!("--log-net-log={}", log.display())];
    browse(&format!("file://{}", file.display()), &switches);
    assert_eq!(asked_by_page(&log), ["http://elsewhere.example/x.png"]);
}

#[test]
fn a_report_is_read_on_the_pages_of_its_facility_county_and_network() {
    let programs = binaries().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (centre, clinic) = (dir.path().join("centre"), dir.path().join("clinic"));
    let aggregator = |arguments: &[&str]| {
        let mut command = Command::new(&programs.aggregator);
        command.arg("--data-dir").arg(&centre).args(arguments);
        command
    };
    let agent = |arguments: &[&str]| {
        let mut command = Command::new(&programs.agent);
        out(command.arg("--data-dir").arg(&clinic).args(arguments))
    };
    out(&mut aggregator(&["init"]));
    let any = "127.0.0.1:0";
    let served = aggregator(&["serve", "--mqtt-addr", any, "--http-addr", any])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut served = Served(served);
    let begun = Instant::now();
    let addresses: Value = loop {
        if let Ok(bytes) = std::fs::read(centre.join("run/addresses.json"))
            && let Ok(json) = serde_json::from_slice(&bytes)
        {
            break json;
        }
        assert!(served.0.try_wait().unwrap().is_none(), "the aggregator ended");
        assert!(begun.elapsed() < READY_WITHIN, "the aggregator is not ready");
        std::thread::sleep(Duration::from_millis(20));
    };
    let site = format!("http://{}", addresses["http"].as_str().unwrap());

    let clinics =
        out(&mut aggregator(&["units", "520502", "--kind", "village_clinic", "--format", "json"]));
    let clinics: Value = serde_json::from_str(&clinics).unwrap();
    let home = &clinics["units"][0];
    let (code, name) = (home["code"].as_str().unwrap(), home["name"].as_str().unwrap());
    let mut networks = home["networks"].as_array().unwrap().iter().filter_map(Value::as_str);
    let network = networks.rfind(|code| code.starts_with("CC-")).unwrap();
    let slip = out(&mut aggregator(&["enroll", code]));
    agent(&["enroll", slip.lines().last().unwrap()]);
    let now = jiff::Timestamp::now().in_tz("Asia/Shanghai").unwrap();
    let day = now.date().yesterday().unwrap();
    let month = day.strftime("%Y-%m").to_string();
    agent(&["record", "vc_daily", &day.to_string(), "open_days=1", "total_visits=321"]);
    agent(&["sync"]);

    let home = page(&format!("{site}/"));
    assert!(home.contains("贵州省") && home.contains("/place/520502"), "{home}");
    let of_visits = |html: &str| {
        let mut rows = html.split("<tr").filter(|row| row.contains("<td title=\"total_visits\""));
        rows.next().unwrap_or_else(|| panic!("no row of visits in {html}")).to_owned()
    };
    let county_url = format!("{site}/place/520502?period={month}");
    let county = page(&county_url);
    assert!(of_visits(&county).contains(r#"<span class="big">321</span>"#), "{county}");
    for text in ["七星关区", "数据截至", "应报报表", "缺报原因", "下一截止", "重点指标", "行政合计"]
    {
        assert!(county.contains(text), "{text} in {county}");
    }
    // Down from the county: its community, a member, a report, the batch it came in.
    let community_link = link(&county, &format!("/place/{network}"));
    let community = page(&format!("{site}{community_link}"));
    assert!(of_visits(&community).contains(r#"<span class="big">321</span>"#), "{community}");
    let english = page(&format!("{site}{community_link}&lang=en"));
    for text in ["Members", "Reports expected", "Missing because", "Headline figures", code] {
        assert!(english.contains(text), "{text} in {english}");
    }
    let facility = page(&format!("{site}{}", link(&community, &format!("/place/{code}"))));
    assert!(facility.contains(name), "{facility}");
    let report =
        page(&format!("{site}{}", link(&facility, &format!("/report/{code}/vc_daily/{day}"))));
    assert!(report.contains("计入") && report.contains(">321<"), "{report}");
    let batch = page(&format!("{site}{}", link(&report, "/batch/")));
    for text in ["账本中的一批", "重新核验，有效", "计入", name, "/vc_daily/"] {
        assert!(batch.contains(text), "{text} in {batch}");
    }
    // Who is in no network, from the reconciliation.
    let none = page(&format!("{site}{}", link(&county, "/list/520502/none")));
    assert!(none.contains("未入任何网络的机构") && none.contains("/place/520502"), "{none}");
    // A city group, on which nothing has come in.
    let group = page(&format!("{site}/place/CG-5201-1?period={month}"));
    for text in ["城市医疗集团", "本期尚未收到任何报表", "成员"] {
        assert!(group.contains(text), "{text} in {group}");
    }
    for (width, height) in [(1366, 768), (375, 1200)] {
        let png = picture(&county_url, width, height);
        assert!(png.starts_with(b"\x89PNG"), "a picture");
        // An empty window makes a picture a tenth of this size.
        assert!(png.len() > 40_000, "{} bytes at {width} x {height}", png.len());
    }
    let unknown = page(&format!("{site}/place/520502999"));
    assert!(unknown.contains("没有找到") && unknown.contains("/place/520502"), "{unknown}");
}
