use super::*;

fn codes(result: &Result<Table, Vec<RowError>>) -> Vec<(u32, &str, &'static str)> {
    result
        .as_ref()
        .unwrap_err()
        .iter()
        .map(|e| (e.line, e.column.as_str(), e.code.code()))
        .collect()
}

#[test]
fn a_header_is_exact_and_its_order_is_free() {
    let table = read_table(b"b,a\r\n1,2\r\n", "f.csv", &["a", "b"], &["c"]).unwrap();
    let row = table.rows().next().unwrap();
    assert_eq!((row.cell(table.column("a")), row.cell(table.column("b"))), ("2", "1"));
    assert_eq!(row.cell(table.column("c")), "");
    let wrong = read_table(b"a,A,a,\n", "f.csv", &["a", "b"], &[]);
    assert_eq!(
        codes(&wrong),
        [
            (1, "A", "unknown_column"),
            (1, "a", "duplicate_column"),
            (1, "", "unknown_column"),
            (1, "b", "missing_column"),
        ]
    );
    assert_eq!(codes(&read_table(b"", "f.csv", &["a"], &[])), [(0, "", "no_header")]);
    let open = read_open_table(b"a,total_visits\n1,2\n", "f.csv", &["a"]).unwrap();
    assert_eq!(open.header, ["a", "total_visits"]);
}

#[test]
fn the_three_encodings_read_alike_and_others_are_named() {
    let text = "a,b\n龙场镇,1\n";
    let gb = encoding_rs::GB18030.encode(text).0.into_owned();
    let mut bom = vec![0xef, 0xbb, 0xbf];
    bom.extend(text.as_bytes());
    for bytes in [text.as_bytes(), &gb, &bom] {
        let table = read_table(bytes, "f.csv", &["a", "b"], &[]).unwrap();
        assert_eq!(table.rows().next().unwrap().cell(table.column("a")), "龙场镇");
    }
    assert_eq!(
        codes(&read_table(b"a,b\n1,\xff\xff\n", "f.csv", &["a", "b"], &[])),
        [(2, "", "encoding")]
    );
    bom.extend(b"\xff,2\n");
    assert_eq!(codes(&read_table(&bom, "f.csv", &["a", "b"], &[])), [(3, "", "encoding")]);
    assert_eq!(codes(&read_table(b"\xff\xfea\0", "f.csv", &["a"], &[])), [(0, "", "encoding")]);
}

#[test]
fn good_rows_stay_beside_bad_ones_and_lines_are_those_of_the_file() {
    let text = "a,b\n\n1,2\n3\n,,,\n4,5,6\n\"7\n8\",9\n10,11,,\n";
    for text in [text.to_owned(), text.replace('\n', "\r\n")] {
        let table = read_table(text.as_bytes(), "f.csv", &["a", "b"], &[]).unwrap();
        let lines: Vec<u32> = table.rows().map(Row::line).collect();
        assert_eq!(lines, [3, 9]);
        let errors: Vec<_> = table.errors.iter().map(|e| (e.line, e.code.code())).collect();
        assert_eq!(errors, [(4, "cell_count"), (6, "cell_count"), (7, "control_character")]);
        assert_eq!(table.refused.len(), 3);
    }
}

#[test]
fn an_error_says_where_what_why_and_what_to_do_in_both_languages() {
    let mut tables = Tables::default();
    let errors = tables.add(
        TableName::Units,
        "我的.csv",
        "code,name,kind,parent,opened,closed\nA,甲,county,,2026-02-31,\nB b,,x,,2026-03-01,2026-03-01\nC,丙,x,,,\n".as_bytes(),
    );
    let seen: Vec<_> = errors.iter().map(|e| (e.line, e.column.as_str(), e.code)).collect();
    assert_eq!(
        seen,
        [
            (2, "opened", Fault::BadDate),
            (3, "code", Fault::BadCode),
            (3, "name", Fault::Empty),
            (3, "closed", Fault::BadSpan),
        ]
    );
    assert_eq!(tables.units.len(), 1, "the good row is kept");
    assert_eq!(
        errors[0].text(Lang::Zh),
        "我的.csv 第2行 列 opened 值 \"2026-02-31\"：不是有效的日期或统计期，请按 2026-01-31 的格式填写日历上存在的日期 [bad_date]"
    );
    assert!(
        errors[0]
            .text(Lang::En)
            .starts_with("我的.csv line 2 column opened value \"2026-02-31\": ")
    );
}

#[test]
fn every_table_reads_its_documented_example() {
    let examples: [(TableName, &str); 10] = [
        (
            TableName::Units,
            "code,name,kind,parent,opened,closed,status,succeeded_by,name_en\nA,甲,county,,,2026-01-01,planned,B;C,Jia\n",
        ),
        (TableName::Attributes, "unit,attribute,value,from,to\nA,hospital_type,tcm,2026-01-01,\n"),
        (
            TableName::Networks,
            "code,name,kind,area,opened,closed,status\nN,网,county_community,A;B,,,\n",
        ),
        (
            TableName::Members,
            "network,unit,role,from,to,kinds,primary,basis\nN,A,none,,,x;y,yes,文\n",
        ),
        (TableName::Duties, "form,unit,from,to\nvc_daily,A,2026-01-01,\n"),
        (
            TableName::Extensions,
            "form,unit,period,due,reason\nvc_daily,A,2026-01-01..2026-01-05,2026-01-20T18:30,雪\nvc_daily,A,2026-02,waived,\n",
        ),
        (TableName::Calendar, "unit,date,day,name\nA,2026-02-28,working,调休\n"),
        (
            TableName::Targets,
            "indicator,unit,level,attribute,direction,low,high,from,to,source,status\ncmi,,,hospital_type=tcm,up,0.86,,,2028-01-01,003,draft\n",
        ),
        (TableName::Codes, "scheme,type,code,external,option\ndhis2,unit,A,Xy12,\n"),
        (TableName::Contacts, "unit,name,phone,from,to\nA,张三,0857-1234,,\n"),
    ];
    let files: Vec<_> =
        examples.iter().map(|(name, text)| (*name, name.file_name(), text.as_bytes())).collect();
    let tables = Tables::parse(&files).unwrap();
    assert_eq!(tables.units[0].succeeded_by.len(), 2);
    assert_eq!(tables.members[0].role, None);
    assert!(tables.members[0].primary && tables.members[0].kinds.len() == 2);
    let at = ExtensionDue::At { date: "2026-01-20".parse().unwrap(), hour: 18, minute: 30 };
    assert_eq!(tables.extensions[0].due, at);
    assert_eq!(tables.extensions[1].due, ExtensionDue::Waived);
    assert_eq!(tables.targets[0].low, Some(0.86));
    assert_eq!(tables.contacts.len() + tables.codes.len() + tables.duties.len(), 3);
}

use registry::ExtensionDue;

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        for name in TableName::ALL {
            let mut with_header = name.columns().0.join(",").into_bytes();
            with_header.push(b'\n');
            with_header.extend(&bytes);
            Tables::default().add(name, "f.csv", &with_header);
            Tables::default().add(name, "f.csv", &bytes);
        }
    }
}
