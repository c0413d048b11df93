//! `banyan-agent import`: good rows are counted, refused ones are in a file beside the input.

use serde_json::json;

use crate::small::{Small, json_of, run, sync};

/// The columns and rows of the error file: line, code.
fn refused(path: &std::path::Path) -> Vec<(u32, String)> {
    let bytes = std::fs::read(path).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let text = text.strip_prefix('\u{feff}').expect("with a mark, so that Excel reads it");
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().unwrap().clone();
    let at = |name: &str| header.iter().position(|column| column == name).unwrap();
    let (line, code, reason) = (at("error_line"), at("error_code"), at("error_reason"));
    let rows = reader.records().map(|row| {
        let row = row.unwrap();
        assert!(!row[reason].is_empty());
        (row[line].parse().unwrap(), row[code].to_owned())
    });
    rows.collect()
}

#[test]
fn a_long_file_in_gb18030_with_good_and_bad_rows() {
    let small = Small::new();
    let township = small.agent("township", &["T1-TH", "V1-VC", "V2-VC"]);
    let head = "facility,form,period,element,value,how,entered_by,reason\r\n";
    // 王医生 as Excel in China writes it.
    let doctor: &[u8] = &[0xcd, 0xf5, 0xd2, 0xbd, 0xc9, 0xfa];
    let mut bytes = head.as_bytes().to_vec();
    for row in [
        "V1-VC,vc_daily,2026-01-05,open_days,1,import,DOCTOR,",
        "V1-VC,vc_daily,2026-01-05,total_visits,12,import,DOCTOR,",
        "V2-VC,vc_daily,20260105,total_visits,5,,,",
        "V2-VC,vc_daily,2026-02-31,total_visits,5,,,",
        "V2-VC,vc_daily,2026-01-06,total_visits,-5,,,",
        "V2-VC,vc_daily,2026-01-07,total_visits,1.5,,,",
        "V2-VC,vc_daily,2026-01-08,total_visits,3万,,,",
        "V2-VC,vc_daily,2026-01-09,no_such,3,,,",
        "V5-VC,vc_daily,2026-01-09,total_visits,3,,,",
        "V2-VC,vc_daily,2026-01,total_visits,3,,,",
        "V2-VC,vc_daily,2026-01-10,total_visits,NA,,,",
        "V2-VC,vc_daily,2026-01-11,total_visits,3,,,",
        "V2-VC,vc_daily,2026-01-11,total_visits,4,,,",
        "V2-VC,vc_daily,2026-01-12,total_visits,99999999999999999999,,,",
        "V2-VC,vc_daily,2026-01-13,beds_actual,3,,,",
    ] {
        for (n, part) in row.split("DOCTOR").enumerate() {
            if n > 0 {
                bytes.extend_from_slice(doctor);
            }
            // 万 is the only other character that is not ASCII.
            for c in part.chars() {
                match c {
                    '万' => bytes.extend_from_slice(&[0xcd, 0xf2]),
                    c => bytes.push(u8::try_from(c).unwrap()),
                }
            }
        }
        bytes.extend_from_slice(b"\r\n");
    }
    let path = small.file("counts.csv", &bytes);
    let done =
        run(&township, &["import", path.to_str().unwrap(), "--lang", "en", "--format", "json"]);
    let done = done.exits(1);
    for part in ["line 5", "line 6", "line 7", "line 8", "2026-02-31", "no_such"] {
        assert!(done.err.contains(part), "{part}: {}", done.err);
    }
    let lines = refused(&small.world.dir().join("counts.errors.csv"));
    let numbers: Vec<u32> = lines.iter().map(|(line, _)| *line).collect();
    assert_eq!(numbers, [5, 6, 7, 8, 9, 10, 11, 14, 15, 16], "{lines:?}");
    sync(&township);
    let value = |unit: &str, day: &str| small.element(unit, day, "total_visits")["value"].clone();
    assert_eq!(value("V1-VC", "2026-01-05"), 12);
    assert_eq!(value("V2-VC", "2026-01-05"), 5);
    assert_eq!(value("V2-VC", "2026-01-11"), 3, "of two rows for one value the first counts");
    assert_eq!(small.element("T1", "2026-01", "total_visits")["value"], 20);
    assert_eq!(small.element("V2-VC", "2026-01-10", "total_visits")["state"], "not_applicable");
    let trace = small.json(&["report", "V1-VC", "vc_daily", "2026-01-05", "--history"]);
    assert_eq!(
        (&trace["history"][0]["how"], &trace["history"][0]["entered_by"]),
        (&json!("import"), &json!("王医生"))
    );
    // The same file once more changes nothing.
    run(&township, &["import", path.to_str().unwrap()]).exits(1);
    assert_eq!(json_of(&township, &["status"])["waiting"], 0);
}

#[test]
fn a_wide_file_with_a_byte_order_mark_and_a_repaired_one() {
    let small = Small::new();
    let clinic = small.agent("clinic", &["V1-VC"]);
    let wide = "\u{feff}facility,form,period,total_visits,home_visits,tcm_visits\r\n\
                V1-VC,vc_daily,2026-01-05,12,2,3\r\n\
                V1-VC,vc_daily,2026-01-06,7,x,\r\n\
                V1-VC,vc_daily,2026-01-07,2,3,0\r\n";
    let path = small.file("wide.csv", wide);
    run(&clinic, &["import", path.to_str().unwrap()]).exits(1);
    let beside = small.world.dir().join("wide.errors.csv");
    let lines: Vec<u32> = refused(&beside).into_iter().map(|(line, _)| line).collect();
    assert_eq!(lines, [3, 4], "home visits above visits are refused too");
    sync(&clinic);
    assert_eq!(small.element("V1-VC", "2026-01", "total_visits")["value"], 12);
    // Mended in place, the error file itself is imported.
    let mended = std::fs::read_to_string(&beside)
        .unwrap()
        .replace(",7,x,", ",7,1,")
        .replace(",2,3,0", ",2,1,0");
    let path = small.file("mended.csv", &mended);
    run(&clinic, &["import", path.to_str().unwrap()]).exits(0);
    assert!(!small.world.dir().join("mended.errors.csv").exists());
    sync(&clinic);
    let visits = small.element("V1-VC", "2026-01", "total_visits");
    assert_eq!((&visits["value"], &visits["reports"]), (&json!(21), &json!(3)));
    // Empty cells leave what was there, unless they are to say "missing".
    let empty = small.file(
        "empty.csv",
        "facility,form,period,total_visits,home_visits\nV1-VC,vc_daily,2026-01-05,,4\n",
    );
    run(&clinic, &["import", empty.to_str().unwrap()]).exits(0);
    sync(&clinic);
    assert_eq!(small.element("V1-VC", "2026-01-05", "total_visits")["value"], 12);
    assert_eq!(small.element("V1-VC", "2026-01-05", "home_visits")["value"], 4);
    let args = ["import", empty.to_str().unwrap(), "--empty", "missing"];
    run(&clinic, &args).exits(0);
    sync(&clinic);
    assert_eq!(small.element("V1-VC", "2026-01-05", "total_visits")["value"], json!(null));
    for (file, text) in [
        ("header.csv", "facility,form,period,wrong_column\nV1-VC,vc_daily,2026-01-05,1\n"),
        ("nothing.csv", ""),
    ] {
        let path = small.file(file, text);
        let done = run(&clinic, &["import", path.to_str().unwrap()]).exits(1);
        assert!(done.err.contains(file), "{}", done.err);
    }
    run(&clinic, &["import", "/no/such/file.csv"]).exits(1);
}
