//! The pages in a real browser: a report goes from a real agent to a real aggregator and is read by Chromium.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

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

/// The folder of the programs, which are built on the way.
fn programs() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).unwrap().to_owned();
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--profile", profile, "--workspace", "--all-features", "--bins"])
        .arg("--manifest-path")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .arg("--target-dir")
        .arg(folder.parent().unwrap())
        .status()
        .unwrap();
    assert!(built.success());
    folder
}

/// What a command writes to stdout; it must succeed.
fn out(command: &mut Command) -> String {
    let output = command.env_remove("BANYAN_LANG").output().unwrap();
    let (text, error) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {text}{error}");
    text
}

/// The page as the browser has it after loading.
fn page(url: &str) -> String {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new("chromium");
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg(format!("--user-data-dir={}", home.path().display()))
        .arg(url);
    out(&mut command)
}

#[test]
fn a_report_is_read_on_the_pages_of_its_facility_county_and_network() {
    let folder = programs();
    let dir = tempfile::tempdir().unwrap();
    let (centre, clinic) = (dir.path().join("centre"), dir.path().join("clinic"));
    let aggregator = |arguments: &[&str]| {
        let mut command = Command::new(folder.join("banyan-aggregator"));
        command.arg("--data-dir").arg(&centre).args(arguments);
        command
    };
    let agent = |arguments: &[&str]| {
        let mut command = Command::new(folder.join("banyan-agent"));
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
        let row = html.split("<tr>").find(|row| row.contains("total_visits</span>"));
        row.unwrap_or_else(|| panic!("no row of visits in {html}")).to_owned()
    };
    let county = page(&format!("{site}/place/520502?period={month}"));
    assert!(of_visits(&county).contains(r#"<span class="big">321</span>"#), "{county}");
    for text in ["七星关区", "数据截至", "应报报表", "缺报原因", "行政合计", network]
    {
        assert!(county.contains(text), "{text} in {county}");
    }
    let members = page(&format!("{site}/place/{network}?period={month}&lang=en"));
    assert!(of_visits(&members).contains(r#"<span class="big">321</span>"#), "{members}");
    for text in ["Members", "Reports expected", "Missing because", code] {
        assert!(members.contains(text), "{text} in {members}");
    }
    let facility = page(&format!("{site}/place/{code}?period={month}"));
    let link = format!("/report/{code}/vc_daily/{day}");
    assert!(facility.contains(name) && facility.contains(&link), "{facility}");
    let report = page(&format!("{site}{link}"));
    assert!(report.contains("计入") && report.contains(">321<"), "{report}");
    let unknown = page(&format!("{site}/place/520502999"));
    assert!(unknown.contains("没有找到") && unknown.contains("/place/520502"), "{unknown}");
}
