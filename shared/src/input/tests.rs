//! Every case of bad input: its code, its place, and that good rows beside it are kept.

use super::*;
use crate::catalogue::{Catalogue, Lang};
use crate::period::Date;
use crate::report::{How, Reason, Value};
use crate::tables::{Fault, RowError};
use crate::wire::{FacilityScope, ScopeAttribute, ScopeSpell};

const SEEDS: &[u8] = include_bytes!("../../../seeds/catalogue.toml");

fn catalogue() -> Catalogue {
    Catalogue::load(SEEDS).unwrap()
}

fn date(year: i16, month: i8, day: i8) -> Date {
    Date::new(year, month, day).unwrap()
}

fn facility(code: &str, kind: &str, from: Option<Date>, to: Option<Date>) -> FacilityScope {
    FacilityScope {
        code: code.parse().unwrap(),
        name: code.into(),
        place: String::new(),
        spells: vec![ScopeSpell { from, to, kind: kind.into() }],
        roles: vec![],
        attributes: vec![ScopeAttribute {
            attribute: "hospital_type".into(),
            value: "general".into(),
            from: None,
            to: None,
        }],
    }
}

fn facilities() -> Vec<FacilityScope> {
    vec![
        facility("V-VC", "village_clinic", None, None),
        facility("T-TH", "township_health_centre", None, None),
        facility("C-VC", "village_clinic", None, Some(date(2026, 1, 10))),
        facility("某村-VC", "village_clinic", None, None),
    ]
}

fn read_with(bytes: &[u8], trusted: bool) -> Result<CountsFile, Vec<RowError>> {
    let (catalogue, facilities) = (catalogue(), facilities());
    let enrolled = Enrolled::new(&facilities);
    let reading = Reading {
        catalogue: &catalogue,
        enrolled: &enrolled,
        today: date(2026, 2, 10),
        clock_trusted: trusted,
    };
    read_counts(bytes, "in.csv", reading)
}

fn read(text: &str) -> CountsFile {
    read_with(text.as_bytes(), true).unwrap()
}

/// The one error of a file whose first row is good and whose second is the one given.
fn refused(row: &str) -> RowError {
    let text = format!(
        "facility,form,period,element,value\nV-VC,vc_daily,2026-01-05,home_visits,1\n{row}\n"
    );
    let file = read(&text);
    assert_eq!(file.reports.len(), 1, "{row}");
    let all = file.all_errors();
    assert_eq!(all.len(), 1, "{row}: {all:?}");
    assert_eq!(all[0].line, 3, "{row}");
    assert!(!all[0].message.zh.is_empty() && !all[0].message.en.is_empty());
    all[0].clone()
}

#[test]
fn each_kind_of_bad_row_has_its_code_and_place() {
    let cases = [
        ("V-VC,vc_daily,2026-01-05,total_visit,1", Fault::UnknownElement, "element", "total_visit"),
        ("X-VC,vc_daily,2026-01-05,total_visits,1", Fault::NotEnrolled, "facility", "X-VC"),
        ("V VC,vc_daily,2026-01-05,total_visits,1", Fault::BadCode, "facility", "V VC"),
        ("V-VC,vc_weekly,2026-01-05,total_visits,1", Fault::UnknownForm, "form", "vc_weekly"),
        ("V-VC,vc_daily,2026-02-31,total_visits,1", Fault::BadDate, "period", "2026-02-31"),
        ("V-VC,vc_daily,5 January,total_visits,1", Fault::BadDate, "period", "5 January"),
        ("V-VC,vc_daily,2026-01,total_visits,1", Fault::WrongPeriodType, "period", "2026-01"),
        ("V-VC,vc_daily,2026-02-11,total_visits,1", Fault::FuturePeriod, "period", "2026-02-11"),
        ("V-VC,vc_daily,2026-01-05,beds_actual,1", Fault::NotInForm, "element", "beds_actual"),
        ("V-VC,thc_daily,2026-01-05,total_visits,1", Fault::FormNotForKind, "form", "thc_daily"),
        (
            "T-TH,thc_monthly,2026-01,disease_types_ytd,1",
            Fault::NotAsked,
            "element",
            "disease_types_ytd",
        ),
        ("V-VC,vc_daily,2026-01-05,total_visits,-3", Fault::Negative, "value", "-3"),
        ("V-VC,vc_daily,2026-01-05,total_visits,3.5", Fault::Decimal, "value", "3.5"),
        ("V-VC,vc_daily,2026-01-05,total_visits,1.2万", Fault::TenThousand, "value", "1.2万"),
        (
            "V-VC,vc_daily,2026-01-05,total_visits,99999999999999999999999",
            Fault::AboveMaximum,
            "value",
            "99999999999999999999999",
        ),
        ("V-VC,vc_daily,2026-01-05,open_days,2", Fault::AboveMaximum, "value", "2"),
        ("V-VC,vc_daily,2026-01-05,total_visits,many", Fault::BadNumber, "value", "many"),
        ("V-VC,vc_daily,2026-01-05,total_visits,１２", Fault::FullWidth, "value", "１２"),
        ("V-VC,vc_daily,2026-01-05,total_visits,*", Fault::Withheld, "value", "*"),
        ("V-VC,vc_daily,2026-01-05,home_visits,1", Fault::Duplicate, "element", "home_visits"),
        ("V-VC,vc_daily,20260105,home_visits,2", Fault::Duplicate, "element", "home_visits"),
        ("V-VC,vc_daily,2026-01-05,total_visits", Fault::CellCount, "", ""),
    ];
    for (row, code, column, value) in cases {
        let error = refused(row);
        assert_eq!(
            (error.code, error.column.as_str(), error.value.as_str()),
            (code, column, value),
            "{row}"
        );
    }
}

#[test]
fn messages_say_what_to_do() {
    let says = |row: &str, zh: &str, en: &str| {
        let error = refused(row);
        assert!(error.text(Lang::Zh).contains(zh), "{}", error.text(Lang::Zh));
        assert!(error.text(Lang::En).contains(en), "{}", error.text(Lang::En));
    };
    says("V-VC,vc_daily,2026-01-05,total_visits,1.2万", "12000", "12000");
    says("V-VC,vc_daily,2026-01-05,total_visits,12.0", "写作 12", "write 12");
    says("V-VC,vc_daily,2026-01-05,total_visits,\"1,234\"", "1234", "1234");
    says("V-VC,vc_daily,2026-01-05,total_visits,1E+05", "科学记数法", "scientific");
    says("V-VC,vc_daily,2026-01-05,total_visits,n/a", "NA", "NA");
    says("V-VC,vc_daily,2026-01-05,total_visit,1", "total_visits", "total_visits");
    says("V-VC,vc_daily,2026-01,total_visits,1", "2026-01-31", "2026-01-31");
    says("V-VC,vc_daily,2026-01-05,home_visits,7", "第2行", "line 2");
}

#[test]
fn a_row_says_all_that_is_wrong_with_it() {
    let file =
        read("facility,form,period,element,value,how\nX-VC,vc_x,2026-02-31,no_such,-1,guess\n");
    let codes: Vec<Fault> = file.all_errors().iter().map(|error| error.code).collect();
    for code in [
        Fault::NotEnrolled,
        Fault::UnknownForm,
        Fault::BadDate,
        Fault::UnknownElement,
        Fault::Negative,
        Fault::BadChoice,
    ] {
        assert!(codes.contains(&code), "{code} in {codes:?}");
    }
    assert_eq!(file.refused.len(), 1);
}

#[test]
fn long_rows_join_to_reports() {
    let file = read(
        "value,element,period,form,facility,how,entered_by,reason\r\n\
         12,total_visits,2026-01-05,vc_daily,V-VC,proxy,W01,\r\n\
         ,home_visits,20260105,vc_daily,V-VC,,,recount\r\n\
         NA,tcm_visits,2026-01-05,vc_daily,V-VC,proxy,,\r\n\
         0,total_visits,2026-01-06,vc_daily,V-VC,,,\r\n",
    );
    assert!(file.all_errors().is_empty(), "{:?}", file.all_errors());
    assert_eq!(file.reports.len(), 2);
    let report = &file.reports[0];
    let mut values: Vec<Value> = report.cells.iter().map(|cell| cell.1).collect();
    values.sort_by_key(|value| format!("{value:?}"));
    assert_eq!(values, [Value::Missing, Value::NotApplicable, Value::Number(12)]);
    assert!(report.cells.windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert_eq!((report.how, report.reason), (Some(How::Proxy), Some(Reason::Recount)));
    assert_eq!((report.entered_by.as_deref(), report.line), (Some("W01"), 2));
    let differ = read(
        "facility,form,period,element,value,how\nV-VC,vc_daily,2026-01-05,total_visits,1,proxy\n\
         V-VC,vc_daily,2026-01-05,home_visits,1,direct\n",
    );
    assert_eq!(differ.all_errors()[0].code, Fault::Conflict);
}

#[test]
fn wide_rows_are_reports_in_any_encoding() {
    let text = "facility,form,period,total_visits,home_visits,beds_actual\r\n\
                某村-VC,vc_daily,2026-01-05,12,,\r\n\
                T-TH,thc_monthly,2026-01,,,30\r\n\
                V-VC,vc_daily,2026-01-06,x,-1,4\r\n\
                某村-VC,vc_daily,2026-01-05,13,,\r\n";
    let (gb, _, _) = encoding_rs::GB18030.encode(text);
    let with_bom = [&[0xef, 0xbb, 0xbf][..], text.as_bytes()].concat();
    for bytes in [text.as_bytes(), &gb, &with_bom] {
        let file = read_with(bytes, true).unwrap();
        assert_eq!(file.reports.len(), 2);
        assert_eq!(file.reports[0].facility.as_str(), "某村-VC");
        let values: Vec<Value> = file.reports[0].cells.iter().map(|cell| cell.1).collect();
        assert!(values.contains(&Value::Number(12)) && values.contains(&Value::Missing));
        let errors: Vec<(u32, &str, Fault)> =
            file.all_errors().iter().map(|e| (e.line, e.column.as_str(), e.code)).collect();
        assert_eq!(
            errors,
            [
                (4, "total_visits", Fault::BadNumber),
                (4, "home_visits", Fault::Negative),
                (4, "beds_actual", Fault::NotInForm),
                (5, "", Fault::Duplicate),
            ]
        );
    }
}

#[test]
fn unknown_columns_refuse_the_file_and_are_named() {
    let errors = read_with(b"facility,form,period,total_visit,visits2\n", true).unwrap_err();
    let columns: Vec<&str> = errors.iter().map(|error| error.column.as_str()).collect();
    assert_eq!(columns, ["total_visit", "visits2"]);
    assert!(errors.iter().all(|error| error.code == Fault::UnknownElement && error.line == 1));
    let errors = read_with(b"facility,form,period,element,value,note\n", true).unwrap_err();
    assert_eq!((errors[0].code, errors[0].column.as_str()), (Fault::UnknownColumn, "note"));
    let errors = read_with(b"facility,form,element,value\n", true).unwrap_err();
    assert_eq!((errors[0].code, errors[0].column.as_str()), (Fault::MissingColumn, "period"));
    assert_eq!(read_with(b"", true).unwrap_err()[0].code, Fault::NoHeader);
}

#[test]
fn closed_facilities_and_doubtful_clocks_only_warn() {
    let file = read(
        "facility,form,period,total_visits\nC-VC,vc_daily,2026-01-09,1\nC-VC,vc_daily,2026-01-10,1\n",
    );
    assert_eq!(file.reports.len(), 2);
    let warnings: Vec<(u32, Fault)> = file.warnings.iter().map(|w| (w.line, w.code)).collect();
    assert_eq!(warnings, [(3, Fault::FacilityClosed)]);
    let text = b"facility,form,period,total_visits\nV-VC,vc_daily,2026-03-01,1\n";
    let file = read_with(text, false).unwrap();
    assert_eq!((file.reports.len(), file.warnings[0].code), (1, Fault::FuturePeriod));
    assert!(read_with(text, true).unwrap().reports.is_empty());
}

#[test]
fn refused_rows_can_be_mended_and_read_again() {
    let text = "facility,form,period,element,value,reason\n\
                V-VC,vc_daily,2026-01-05,total_visits,5,\n\
                V-VC,vc_daily,2026-01-05,home_visits,-1,recount\n\
                V-VC,vc_daily,2026-01-05,tcm_visits,1,,,7\n";
    let file = read(text);
    let csv = String::from_utf8(file.refused_csv(Lang::Zh).unwrap()).unwrap();
    let lines: Vec<&str> = csv.trim_start_matches('\u{feff}').lines().collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(
        lines[0],
        "facility,form,period,element,value,reason,error_line,error_code,error_reason"
    );
    assert!(
        lines[1].starts_with("V-VC,vc_daily,2026-01-05,home_visits,-1,recount,3,negative,"),
        "{csv}"
    );
    assert!(lines[2].contains(",4,cell_count,"), "{csv}");
    let mended = format!("{}\n{}\n", lines[0], lines[1].replace(",-1,", ",2,"));
    let again = read(&mended);
    assert!(again.all_errors().is_empty(), "{:?}", again.all_errors());
    assert_eq!(again.reports[0].reason, Some(Reason::Recount));
    assert_eq!(again.refused_csv(Lang::Zh), None);
    // Refused a second time, the three columns do not double.
    let worse = read(&mended.replace(",2,", ",x,"));
    let csv = String::from_utf8(worse.refused_csv(Lang::En).unwrap()).unwrap();
    assert_eq!(csv.matches("error_code").count(), 1);
}

#[test]
fn arguments_are_read_like_cells() {
    let (catalogue, facilities) = (catalogue(), facilities());
    let enrolled = Enrolled::new(&facilities);
    let period = "2026-01-05".parse().unwrap();
    let standing = enrolled.standing(&catalogue, "V-VC", period).unwrap();
    let form = catalogue.form("vc_daily").unwrap();
    let read = |text| parse_assignment(&catalogue, form, &standing, text);
    let value = |text| read(text).unwrap().1;
    assert_eq!(value("total_visits=12"), Value::Number(12));
    assert_eq!(value("total_visits=NA"), Value::NotApplicable);
    assert_eq!(value("total_visits="), Value::Missing);
    assert_eq!(read("total_visits").unwrap_err().code, Fault::BadChoice);
    assert_eq!(read("beds_actual=1").unwrap_err().code, Fault::NotInForm);
    assert_eq!(read("总诊疗人次=1").unwrap_err().code, Fault::UnknownElement);
    assert!(read("总诊疗人次=1").unwrap_err().message.en.contains("total_visits"));
    assert_eq!(read("total_visits=-1").unwrap_err().code, Fault::Negative);
}

#[test]
fn any_bytes_give_an_answer() {
    let mut state = 7u64;
    let text = "facility,form,period,element,value\nV-VC,vc_daily,2026-01-05,total_visits,1\n\"V-VC\",,2026-13-01,万,＊\n";
    for _ in 0..2000 {
        let mut bytes = text.as_bytes().to_vec();
        for _ in 0..4 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let at = (state >> 33) as usize % bytes.len();
            bytes[at] = (state >> 16) as u8;
        }
        if let Ok(file) = read_with_cached(&bytes) {
            assert!(file.refused.iter().all(|row| !row.errors.is_empty()));
        }
    }
}

fn read_with_cached(bytes: &[u8]) -> Result<CountsFile, Vec<RowError>> {
    static CATALOGUE: std::sync::OnceLock<Catalogue> = std::sync::OnceLock::new();
    let catalogue = CATALOGUE.get_or_init(catalogue);
    let facilities = facilities();
    let enrolled = Enrolled::new(&facilities);
    let reading =
        Reading { catalogue, enrolled: &enrolled, today: date(2026, 2, 10), clock_trusted: true };
    read_counts(bytes, "in.csv", reading)
}

#[test]
fn what_a_spreadsheet_would_take_for_a_formula_is_guarded_and_read_back() {
    for (text, cell) in [
        ("=1+1", "'=1+1"),
        ("-A1", "'-A1"),
        ("@x", "'@x"),
        ("＝x", "'＝x"),
        ("W01", "W01"),
        ("", ""),
        ("'quoted'", "'quoted'"),
    ] {
        assert_eq!(guarded(text), cell);
        assert_eq!(unguarded(cell), text);
    }
}
