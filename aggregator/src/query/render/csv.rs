//! Answers as CSV. The headers are contracts: `docs/formats.md`.

use banyan_shared::catalogue::Lang;
use banyan_shared::figures::MissingWhy;
use banyan_shared::input::guarded;
use banyan_shared::organisation::Organisation;
use banyan_shared::period::{Date, Span};

use super::causes;
use crate::query::anomalies::AnomaliesAnswer;
use crate::query::answer::{CompletenessAnswer, QueryAnswer, RowKey};
use crate::query::trace::Trace;

/// The header of a query as CSV.
const QUERY_HEADER: [&str; 20] = [
    "unit",
    "name",
    "path",
    "kind",
    "network",
    "period",
    "item",
    "item_type",
    "value",
    "state",
    "numerator",
    "denominator",
    "reports",
    "expected",
    "facilities",
    "facilities_expected",
    "target",
    "met",
    "definition",
    "flags",
];

fn write(rows: impl FnOnce(&mut ::csv::Writer<Vec<u8>>) -> ::csv::Result<()>) -> String {
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    rows(&mut writer).expect("writing to memory does not fail");
    let bytes = writer.into_inner().expect("writing to memory does not fail");
    String::from_utf8(bytes).expect("what was written is UTF-8")
}

/// Where the rows of an answer are: each at its own place, on the map of the answer or of its own last day.
struct Places<'a> {
    organisation: &'a Organisation,
    /// The path of the place asked for.
    asked: &'a [String],
    /// The day of the map, unless it is each period's own.
    map: Option<Date>,
}

/// The cells of a row that say what it is of.
struct Place {
    unit: String,
    name: String,
    path: String,
    kind: String,
    network: String,
}

impl Places<'_> {
    /// The path of a row's unit or network; rows by kind or role alone are of the place asked for.
    fn path(&self, key: &RowKey) -> Vec<String> {
        let org = self.organisation;
        let of_row = key.unit.as_deref().or(key.network.as_deref());
        let last_day = || key.period.parse::<Span>().ok().map(Span::last_day);
        let (Some(code), Some(day)) = (of_row, self.map.or_else(last_day)) else {
            return self.asked.to_vec();
        };
        let names = |unit| {
            let path = org.path(unit, day).into_iter();
            path.map(|unit| org.name_on(unit, day, Lang::Zh).to_owned()).collect()
        };
        match (key.unit.is_some(), org.unit(code), org.network(code)) {
            (true, Some(unit), _) => names(unit),
            (false, _, Some(network)) => {
                let info = org.network_info(network);
                let mut path: Vec<String> = match *info.area {
                    [area] => names(area),
                    _ => Vec::new(),
                };
                path.push(info.name.to_string());
                path
            }
            _ => self.asked.to_vec(),
        }
    }

    fn place(&self, key: &RowKey) -> Place {
        let network = match (&key.role, &key.network) {
            (Some(role), Some(network)) => format!("{role}@{network}"),
            (Some(role), None) => role.clone(),
            (None, network) => network.clone().unwrap_or_default(),
        };
        Place {
            unit: key.unit.clone().unwrap_or_default(),
            name: guarded(key.name.as_deref().unwrap_or_default()).into_owned(),
            path: guarded(&self.path(key).join("/")).into_owned(),
            kind: key.kind.clone().unwrap_or_default(),
            network,
        }
    }
}

/// The day of an answer's map.
fn map_day(map_date: Option<&String>) -> Option<Date> {
    map_date.and_then(|text| text.parse().ok())
}

/// The answer as CSV, one line a row and item. `organisation` is the one it was answered from.
pub fn query_csv(answer: &QueryAnswer, organisation: &Organisation) -> String {
    let map = map_day(answer.map_date.as_ref());
    let places = Places { organisation, asked: &answer.path, map };
    let plain = |n: Option<f64>| n.map(|n| n.to_string()).unwrap_or_default();
    write(|out| {
        out.write_record(QUERY_HEADER)?;
        for row in &answer.rows {
            let Place { unit, name, path, kind, network } = places.place(&row.key);
            let head = [unit, name, path, kind, network, row.key.period.clone()];
            for (code, e) in row.elements.iter() {
                let tail = [
                    code.to_owned(),
                    "element".to_owned(),
                    e.value.map(|n| n.to_string()).unwrap_or_default(),
                    e.state.code().to_owned(),
                    String::new(),
                    String::new(),
                    e.reports.to_string(),
                    e.expected.to_string(),
                    e.facilities.to_string(),
                    e.facilities_expected.to_string(),
                    String::new(),
                    String::new(),
                    e.item.definition.clone(),
                    e.flags().join(";"),
                ];
                out.write_record(head.iter().chain(&tail))?;
            }
            for (code, i) in row.indicators.iter() {
                let tail = [
                    code.to_owned(),
                    "indicator".to_owned(),
                    plain(i.value),
                    i.state.code().to_owned(),
                    plain(i.numerator),
                    plain(i.denominator),
                    i.coverage.matched.to_string(),
                    i.coverage.expected.to_string(),
                    String::new(),
                    String::new(),
                    plain(i.bound()),
                    i.met.map(|met| met.to_string()).unwrap_or_default(),
                    i.item.definition.clone(),
                    i.flags().join(";"),
                ];
                out.write_record(head.iter().chain(&tail))?;
            }
        }
        Ok(())
    })
}

/// The answer about completeness as CSV, one line a row and form. `organisation` is the one it was answered
/// from.
pub fn completeness_csv(answer: &CompletenessAnswer, organisation: &Organisation) -> String {
    let map = map_day(answer.map_date.as_ref());
    let places = Places { organisation, asked: &answer.path, map };
    let mut header: Vec<&str> = vec![
        "unit",
        "name",
        "path",
        "form",
        "period",
        "expected",
        "received",
        "on_time",
        "late",
        "late_by_network",
        "not_yet_due",
        "missing",
        "incomplete",
        "proxy",
    ];
    header.extend(MissingWhy::ALL.iter().map(|why| why.code()));
    write(|out| {
        out.write_record(&header)?;
        for row in &answer.rows {
            let Place { unit, name, path, kind, network } = places.place(&row.key);
            // Rows by network, kind or role have no unit: the code of what they are stands there.
            let parts = [unit, network, kind];
            let unit =
                parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(":");
            for (form, c) in &row.forms {
                let numbers = c.parts();
                let record: Vec<String> = [
                    unit.clone(),
                    name.clone(),
                    path.clone(),
                    form.clone(),
                    row.key.period.clone(),
                ]
                .into_iter()
                .chain(numbers.iter().map(u64::to_string))
                .chain(causes(c).into_iter().map(|n| n.map(|n| n.to_string()).unwrap_or_default()))
                .collect();
                out.write_record(&record)?;
            }
        }
        Ok(())
    })
}

/// Broken rules as CSV, one line each.
pub fn anomalies_csv(answer: &AnomaliesAnswer, lang: Lang) -> String {
    const HEADER: [&str; 10] = [
        "unit", "name", "path", "form", "period", "rule", "scope", "severity", "values", "message",
    ];
    write(|out| {
        out.write_record(HEADER)?;
        for row in &answer.rows {
            let values = row.values.0.iter().map(|(code, n)| format!("{code}={n}"));
            out.write_record([
                row.unit.clone(),
                guarded(&row.name).into_owned(),
                guarded(&row.path.join("/")).into_owned(),
                row.form.clone().unwrap_or_default(),
                row.period.clone(),
                row.rule.clone(),
                row.scope.clone(),
                row.severity.clone(),
                values.collect::<Vec<_>>().join(";"),
                row.message.get(lang).to_owned(),
            ])?;
        }
        Ok(())
    })
}

/// The trace of a number as CSV: one line a value; with the history, those of every version too.
pub fn trace_csv(trace: &Trace) -> String {
    const HEADER: [&str; 20] = [
        "facility",
        "name",
        "path",
        "form",
        "period",
        "status",
        "version",
        "counted",
        "how",
        "entered_by",
        "entered_at",
        "received_at",
        "position",
        "reason",
        "override_code",
        "withdrawn",
        "replaced_by",
        "element",
        "value",
        "state",
    ];
    write(|out| {
        out.write_record(HEADER)?;
        let head = [
            trace.facility.clone(),
            guarded(&trace.name).into_owned(),
            guarded(&trace.path.join("/")).into_owned(),
            trace.form.clone(),
            trace.period.clone(),
            trace.status.clone(),
        ];
        let none = || std::iter::repeat_n(String::new(), 11);
        for ((element, value), (_, state)) in trace.values.0.iter().zip(&trace.states.0) {
            let tail = [element.clone(), value.to_string(), state.code().to_owned()];
            out.write_record(head.iter().cloned().chain(none()).chain(tail))?;
        }
        for v in &trace.history {
            let of_version = [
                v.version.clone(),
                v.counted.to_string(),
                v.how.clone(),
                guarded(v.entered_by.as_deref().unwrap_or_default()).into_owned(),
                v.entered_at.clone(),
                v.received_at.clone(),
                v.position.to_string(),
                v.reason.clone().unwrap_or_default(),
                v.override_code.clone().unwrap_or_default(),
                v.withdrawn.to_string(),
                v.replaced_by.join(";"),
            ];
            // A withdrawal says nothing of any element: one line all the same.
            let values = v.values.0.iter().map(|(e, value)| (e.clone(), value.to_string()));
            let mut values: Vec<(String, String)> = values.collect();
            if values.is_empty() {
                values.push((String::new(), String::new()));
            }
            for (element, value) in values {
                let tail = [element, value, String::new()];
                out.write_record(head.iter().cloned().chain(of_version.clone()).chain(tail))?;
            }
        }
        Ok(())
    })
}
