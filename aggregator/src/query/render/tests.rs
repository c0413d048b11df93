use banyan_shared::catalogue::Lang;

use super::*;
use crate::query::fixture::World;
use crate::query::{CompletenessRequest, QueryAnswer, QueryRequest};

/// Unit, name, path and network of each row of a file with these columns, each told once.
fn places(csv: &str, columns: &[&str]) -> Vec<Vec<String>> {
    let mut reader = ::csv::Reader::from_reader(csv.as_bytes());
    let header = reader.headers().unwrap().clone();
    let at: Vec<usize> =
        columns.iter().map(|name| header.iter().position(|h| h == *name).unwrap()).collect();
    let mut rows: Vec<Vec<String>> = reader
        .records()
        .map(|row| {
            let row = row.unwrap();
            at.iter().map(|at| row[*at].to_owned()).collect()
        })
        .collect();
    rows.dedup();
    rows
}

#[test]
fn the_path_of_a_csv_row_is_that_of_the_row() {
    let mut w = World::new();
    w.put("A", "daily", "2026-01-05", &["7", ""], ("2026-01-06", 9));
    let now = w.at("2026-02-20", 9);
    let query = |w: &World, place: &str, by: &str, names: bool| {
        let request = QueryRequest {
            place: place.to_owned(),
            period: "2026-01".to_owned(),
            by: vec![by.to_owned()],
            network: Some("alliance".to_owned()).filter(|_| by == "network"),
            elements: vec!["visits".to_owned()],
            names,
            ..QueryRequest::default()
        };
        let answer = w.engine().query(&request, now).unwrap();
        places(&query_csv(&answer, &w.organisation), &["unit", "name", "path", "kind", "network"])
    };
    // The same whether names repeat, were asked for, or neither.
    for names in [false, true] {
        assert_eq!(
            query(&w, "C1", "township", names),
            [
                ["C1", "一县（本级）", "省/一县", "", ""],
                ["T1", "一镇", "省/一县/一镇", "", ""],
                ["T2", "二镇", "省/一县/二镇", "", ""],
            ]
        );
        assert_eq!(
            query(&w, "C1", "network", names),
            [["", "联盟一", "联盟一", "", "L1"], ["", "联盟二", "联盟二", "", "L2"]]
        );
        // Of no unit: the place asked for.
        let clinics = ["", "诊所", "省/一县", "clinic", ""].map(String::from);
        assert!(query(&w, "C1", "kind", names).contains(&clinics.to_vec()));
        assert_eq!(
            query(&w, "G1", "month", names),
            [["", "一县医共体", "省/一县/一县医共体", "", "G1"]]
        );
        assert_eq!(query(&w, "T1", "month", names), [["T1", "一镇", "省/一县/一镇", "", ""]]);
    }
    let request = CompletenessRequest {
        place: "C1".to_owned(),
        period: "2026-01".to_owned(),
        by: vec!["township".to_owned()],
        form: Some("daily".to_owned()),
        ..CompletenessRequest::default()
    };
    let answer = w.engine().completeness(&request, now).unwrap();
    assert_eq!(
        places(&completeness_csv(&answer, &w.organisation), &["unit", "name", "path"]),
        [["T1", "一镇", "省/一县/一镇"], ["T2", "二镇", "省/一县/二镇"]]
    );
}

#[test]
fn the_table_tells_stage_restatement_and_what_awaits_approval() {
    let w = World::new();
    let request =
        QueryRequest { place: "C1".into(), period: "2026-01".into(), ..QueryRequest::default() };
    let open = w.engine().query(&request, w.at("2026-02-20", 9)).unwrap();
    let lines = |answer: &QueryAnswer, lang| query_table(answer, &w.catalogue, lang);
    assert!(!lines(&open, Lang::Zh).contains("锁定") && !lines(&open, Lang::En).contains("lock"));
    let changed = QueryAnswer {
        stage: "locked".into(),
        restated: true,
        pending_after_lock: 2,
        ..open.clone()
    };
    assert!(
        lines(&changed, Lang::Zh).contains("\n已锁定；签核后已修订；锁定后待批准版本 2\n"),
        "{}",
        lines(&changed, Lang::Zh)
    );
    let en =
        "\nlocked; restated since it was signed off; 2 versions await approval behind a lock\n";
    assert!(lines(&changed, Lang::En).contains(en), "{}", lines(&changed, Lang::En));
    let signed = QueryAnswer { stage: "signed".into(), ..open };
    assert!(lines(&signed, Lang::Zh).contains("\n已签核\n"), "{}", lines(&signed, Lang::Zh));
}
