//! Another country with no code change: ten months of England's emergency-department returns, through real agents
//! into a real aggregator, against the sums others have made of them.
//!
//! The registry is made of the files of `tests/data/nhs_ae_monthly`, whose README says where they come from.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use banyan_shared::catalogue::{Catalogue, FormIx};
use banyan_shared::ids::UnitCode;
use banyan_shared::organisation::Organisation;
use banyan_shared::period::Period;
use banyan_shared::report::Value;
use banyan_shared::tables::{TableName, Tables};
use banyan_tests::agents::{Agents, Enrolment};
use banyan_tests::counts::{Desk, Plan, Typed};
use banyan_tests::model::Model;
use banyan_tests::{Aggregator, World, until};
use data_encoding::BASE64;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};

use crate::small::{Small, run, sync};

const FORM: &str = "ae_monthly";
/// The months there are returns of.
const FIRST: &str = "202406";
const LAST: &str = "202503";
/// Who was taken over by whom, as the README tells it.
const SUCCESSORS: [(&str, &str); 1] = [("RAP", "RAL")];
/// Boards whose providers all report by the files of one desk, at the first of them.
const BY_FILE: [&str; 2] = ["QHL", "QMM"];
/// How long the line may take: only what never comes about takes so long.
const SOON: Duration = Duration::from_secs(180);

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/nhs_ae_monthly").join(name)
}

fn rows<T: DeserializeOwned>(name: &str) -> Vec<T> {
    let mut reader = csv::Reader::from_path(data(name)).unwrap();
    reader.deserialize().map(|row| row.unwrap()).collect()
}

#[derive(Clone, Debug, Deserialize)]
struct Org {
    code: String,
    name: String,
    level: String,
    parent: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Counted {
    facility: String,
    facility_name: String,
    period: String,
    element: String,
    value: u64,
}

#[derive(Clone, Debug, Deserialize)]
struct Rollup {
    level: String,
    org: String,
    period_type: String,
    period: String,
    element: String,
    total: u64,
    facilities: u64,
}

#[derive(Clone, Debug, Deserialize)]
struct Published {
    period: String,
    element: String,
    published_total: u64,
}

fn period(text: &str) -> Period {
    text.parse().unwrap()
}

/// The returns as published.
struct Returns {
    orgs: Vec<Org>,
    counted: Vec<Counted>,
    /// The values of each facility and month, by element.
    of: BTreeMap<(String, Period), BTreeMap<String, u64>>,
    elements: BTreeSet<String>,
}

impl Returns {
    fn read() -> Returns {
        let counted: Vec<Counted> = rows("values.csv");
        let mut of: BTreeMap<_, BTreeMap<String, u64>> = BTreeMap::new();
        for row in &counted {
            let values = of.entry((row.facility.clone(), period(&row.period))).or_default();
            let before = values.insert(row.element.clone(), row.value);
            assert_eq!(before, None, "{row:?} stands twice");
        }
        let elements = counted.iter().map(|row| row.element.clone()).collect();
        Returns { orgs: rows("orgs.csv"), counted, of, elements }
    }

    /// The months a facility has rows in, and its name in each.
    fn months(&self) -> BTreeMap<&str, BTreeMap<Period, &str>> {
        let mut months: BTreeMap<&str, BTreeMap<Period, &str>> = BTreeMap::new();
        for row in &self.counted {
            let names = months.entry(&row.facility).or_default();
            names.insert(period(&row.period), &row.facility_name);
        }
        months
    }

    /// `units.csv`: a facility without rows at the beginning opened later, one without rows at the end closed, one
    /// with another name was renamed that month.
    fn units(&self) -> String {
        let months = self.months();
        let mut writer = csv::Writer::from_writer(Vec::new());
        let header = "code,name,kind,parent,opened,closed,status,succeeded_by";
        writer.write_record(header.split(',')).unwrap();
        let mut write = |cells: [&str; 8]| writer.write_record(cells).unwrap();
        for org in &self.orgs {
            if org.level != "facility" {
                write([&org.code, &org.name, &org.level, &org.parent, "", "", "", ""]);
                continue;
            }
            let known = &months[org.code.as_str()];
            let (first, last) = (known.keys().next().unwrap(), known.keys().last().unwrap());
            let closed = match *last < period(LAST) {
                true => last.plus(1).first_day().to_string(),
                false => String::new(),
            };
            let successor = SUCCESSORS.iter().find(|(gone, _)| *gone == org.code);
            assert!(successor.is_none() || !closed.is_empty());
            let mut from = match *first > period(FIRST) {
                true => first.first_day().to_string(),
                false => String::new(),
            };
            let spells: Vec<(&Period, &&str)> = known.iter().collect();
            for (at, (_, name)) in spells.iter().enumerate() {
                let to = match spells.get(at + 1) {
                    Some((_, next)) if next == name => continue,
                    Some((month, _)) => month.first_day().to_string(),
                    None => closed.clone(),
                };
                let by = successor.filter(|_| at + 1 == spells.len()).map_or("", |(_, by)| *by);
                write([&org.code, name, "provider", &org.parent, &from, &to, "", by]);
                from = to;
            }
        }
        String::from_utf8(writer.into_inner().unwrap()).unwrap()
    }

    /// Facilities by board.
    fn boards(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut boards: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for org in self.orgs.iter().filter(|org| org.level == "facility") {
            boards.entry(&org.parent).or_default().push(&org.code);
        }
        boards
    }

    /// A long file of counts for a board's facilities.
    fn long(&self, facilities: &[&str]) -> String {
        let mut text = "facility,form,period,element,value\n".to_owned();
        for row in self.counted.iter().filter(|row| facilities.contains(&row.facility.as_str())) {
            let Counted { facility, period, element, value, .. } = row;
            text += &format!("{facility},{FORM},{period},{element},{value}\n");
        }
        text
    }
}

/// The centre with England's registry, and everything sent.
struct England {
    returns: Returns,
    small: Small,
}

impl England {
    /// A centre at which every value has arrived.
    fn sent() -> England {
        let returns = Returns::read();
        let world = World::new(None).unwrap();
        let units = world.dir().join("units.csv");
        std::fs::write(&units, returns.units()).unwrap();
        let targets = data("targets.csv");
        let catalogue = data("catalogue.toml");
        let paths = [&units, &catalogue, &targets].map(|path| path.to_str().unwrap());
        world.init(&["--units", paths[0], "--catalogue", paths[1], "--targets", paths[2]]).unwrap();
        let served = world.serve().unwrap();
        let england =
            England { returns, small: Small { world, served: Some(served), init: String::new() } };
        england.send();
        england
    }

    fn centre(&self) -> &Aggregator {
        self.small.served()
    }

    /// Sends every return: most providers by an agent of their own, some boards by a file at one desk.
    fn send(&self) {
        let catalogue = std::fs::read(data("catalogue.toml")).unwrap();
        let catalogue = Arc::new(Catalogue::load(&catalogue).unwrap());
        let units = self.returns.units();
        let tables = [(TableName::Units, "units.csv", units.as_bytes())];
        let organisation =
            Organisation::build(&catalogue, &Tables::parse(&tables).unwrap()).unwrap();
        let form = &catalogue.forms[0];
        let lines: HashMap<&str, usize> = form
            .lines
            .iter()
            .enumerate()
            .map(|(at, line)| (catalogue.elements[line.element.at()].code.as_str(), at))
            .collect();
        assert_eq!((form.code.as_str(), lines.len()), (FORM, 18));
        let mut plans: BTreeMap<&str, Plan> = BTreeMap::new();
        let mut desks = Vec::new();
        for (board, facilities) in self.returns.boards() {
            if BY_FILE.contains(&board) {
                desks.push((board, facilities));
                continue;
            }
            for code in facilities {
                let home: UnitCode = code.parse().unwrap();
                plans.insert(
                    code,
                    Plan { home, desk: Desk::Hospital, below: None, typed: Vec::new() },
                );
            }
        }
        for ((facility, period), values) in &self.returns.of {
            let Some(plan) = plans.get_mut(facility.as_str()) else { continue };
            let numbers = values.iter();
            plan.typed.push(Typed {
                facility: plan.home.clone(),
                unit: organisation.unit(facility).unwrap(),
                form: FormIx(0),
                period: *period,
                values: numbers.map(|(e, n)| (lines[e.as_str()], Value::Number(*n))).collect(),
                closed: false,
                withdraw: false,
                proxy: false,
                reason: None,
                stage: 0,
            });
        }
        let agents = plans.len();
        let homes: Vec<&str> = plans.keys().copied().collect();
        let request = json!({ "command": "enrol_each", "units": homes, "expires_s": 86_400 });
        let files = self.centre().call(&request).unwrap();
        let files = files.as_array().unwrap().iter().map(|file| {
            let bytes = BASE64.decode(file["file"].as_str().unwrap().as_bytes()).unwrap();
            Enrolment::File(bytes)
        });
        let mut fleet = Agents::new().unwrap();
        let dir = self.small.world.dir().join("agents");
        fleet.enrol(&dir, plans.into_values().zip(files).collect(), || {}).unwrap();
        assert_eq!(fleet.len(), agents);
        let model = Mutex::new(Model::default());
        fleet.type_stage(0, &catalogue, &model, |_| {}).unwrap();
        for (board, facilities) in desks {
            let desk = self.small.agent(board, &facilities);
            let path = self.small.file(&format!("{board}.csv"), self.returns.long(&facilities));
            run(&desk, &["import", path.to_str().unwrap()]).exits(0);
            sync(&desk);
        }
        until("every agent has its receipts", SOON, || {
            let standing = fleet.standing();
            Ok((standing.enrolled == agents && standing.waiting == 0).then_some(()))
        })
        .unwrap();
    }

    /// The answer to a query through the command line.
    fn query(&self, unit: &str, period: &str, by: &str) -> Json {
        self.small.json(&["query", unit, period, "--by", by])
    }
}

/// One figure of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Figure {
    value: Option<u64>,
    state: String,
    facilities: u64,
}

/// The figures of an answer's rows, by unit, period and element.
fn figures(answer: &Json) -> BTreeMap<(String, Period, String), Figure> {
    let mut figures = BTreeMap::new();
    for row in answer["rows"].as_array().unwrap() {
        let key = &row["key"];
        let unit = key["unit"].as_str().unwrap_or_else(|| answer["unit"].as_str().unwrap());
        let at = period(key["period"].as_str().unwrap());
        for (element, figure) in row["elements"].as_object().unwrap() {
            let figure = Figure {
                value: figure["value"].as_u64(),
                state: figure["state"].as_str().unwrap().to_owned(),
                facilities: figure["facilities"].as_u64().unwrap(),
            };
            figures.insert((unit.to_owned(), at, element.clone()), figure);
        }
    }
    figures
}

#[test]
fn england_through_real_agents_gives_every_published_total_and_every_roll_up() {
    let england = England::sent();
    let returns = &england.returns;
    let months = "2024-06..2025-03";
    let quarters = "2024Q3..2025Q1";

    // Every value sent, as it was sent, and nothing else.
    assert_eq!(returns.counted.len(), 35_604);
    let cells = figures(&england.query("ENG", months, "facility,month"));
    for row in &returns.counted {
        let key = (row.facility.clone(), period(&row.period), row.element.clone());
        assert_eq!(cells[&key].value, Some(row.value), "{row:?}");
    }
    let numbers = cells.values().filter(|figure| figure.value.is_some()).count();
    assert_eq!(numbers, 35_604);

    // Every roll-up made of them elsewhere: the total, and over how many facilities.
    let mut sums = BTreeMap::new();
    for (level, by) in [("country", ""), ("region", "region,"), ("icb", "icb,")] {
        for (kind, span) in [("month", months), ("quarter", quarters)] {
            let answer = england.query("ENG", span, &format!("{by}{kind}"));
            for (key, figure) in figures(&answer) {
                sums.insert((level, kind, key), figure);
            }
        }
    }
    let reference: Vec<Rollup> = rows("reference_rollup.csv");
    assert_eq!(reference.len(), 11_700);
    let mut wrong = Vec::new();
    for row in &reference {
        let key = (row.org.clone(), period(&row.period), row.element.clone());
        let expected = Figure {
            value: Some(row.total),
            state: "reported".to_owned(),
            facilities: row.facilities,
        };
        let got = sums.remove(&(row.level.as_str(), row.period_type.as_str(), key));
        if got.as_ref() != Some(&expected) {
            wrong.push(format!("{row:?}: {got:?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of them: {}",
        wrong.len(),
        wrong[..wrong.len().min(5)].join("\n")
    );
    assert!(sums.is_empty(), "figures nobody else has: {sums:?}");

    // Every total as published, by HTTP and as CSV.
    let published: Vec<Published> = rows("published_totals.csv");
    assert_eq!(published.len(), 180);
    let path = format!("/v1/query?unit=ENG&period={months}&by=month&format=csv");
    let answer = england.centre().get(&path).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    let mut reader = csv::Reader::from_reader(answer.body.as_bytes());
    let totals: HashMap<(Period, String), String> = reader
        .deserialize()
        .map(|row| {
            let row: HashMap<String, String> = row.unwrap();
            ((period(&row["period"]), row["item"].clone()), row["value"].clone())
        })
        .collect();
    for row in &published {
        let total = &totals[&(period(&row.period), row.element.clone())];
        assert_eq!(*total, row.published_total.to_string(), "{row:?}");
    }
    what_opened_closed_and_changed(&england);
    england.small.served.unwrap().stop().unwrap();
}

/// What the registry says of the few that do not report each month.
fn what_opened_closed_and_changed(england: &England) {
    let returns = &england.returns;
    let elements = returns.elements.len();
    let months: Vec<Period> = (0..10).map(|n| period(FIRST).plus(n)).collect();
    let given = returns.months();

    // Who is owed, who sent, who is missing: only RET in September.
    let answer = england.query("ENG", "2024-06..2025-03", "facility,month");
    let cells = figures(&answer);
    let missing: BTreeSet<(String, Period)> = cells
        .iter()
        .filter(|(_, figure)| figure.state == "missing")
        .map(|((unit, at, _), _)| (unit.clone(), *at))
        .collect();
    assert_eq!(missing, BTreeSet::from([("RET".to_owned(), period("2024-09"))]));
    let sent = returns.of.len() as u64;
    let whole = &answer["completeness"];
    assert_eq!(sent * elements as u64, 35_604);
    assert_eq!(whole["expected"], sent + 1, "{whole}");
    assert_eq!(whole["received"], sent, "{whole}");
    assert_eq!(whole["missing"], 1, "{whole}");
    assert_eq!(whole["late"], sent, "all were sent long after they were due: {whole}");

    // Taken over, stopped, begun: owed from the first month to the last, and no longer.
    for (facility, opened, closed) in [
        ("RAP", FIRST, "2025-01"),
        ("AXG", FIRST, "2025-03"),
        ("NNF16", "2024-07", "2025-04"),
        ("RAT", "2025-01", "2025-04"),
        ("A5D4Q", "2025-03", "2025-04"),
    ] {
        let key = |at: &Period| (facility.to_owned(), *at, "att_t1".to_owned());
        for at in &months {
            let open = *at >= period(opened) && *at < period(closed);
            let figure = cells.get(&key(at));
            let reported = figure.is_some_and(|figure| figure.state == "reported");
            assert_eq!(reported, open, "{facility} {at}: {figure:?}");
            assert_eq!(given[facility].contains_key(at), open);
        }
    }

    // A name is that of its time.
    for (facility, then, now) in [
        ("RAX", "KINGSTON HOSPITAL NHS", "KINGSTON AND RICHMOND NHS"),
        ("RW1", "SOUTHERN HEALTH NHS", "HAMPSHIRE AND ISLE OF WIGHT HEALTHCARE NHS"),
        ("RWD", "UNITED LINCOLNSHIRE HOSPITALS NHS", "UNITED LINCOLNSHIRE TEACHING HOSPITALS NHS"),
    ] {
        for (day, name) in [("2024-06-30", then), ("2025-03-31", now)] {
            let listed = england.small.json(&["units", "ENG", "--kind", "provider", "--date", day]);
            let units = listed["units"].as_array().unwrap();
            let unit = units.iter().find(|unit| unit["code"] == facility).unwrap();
            assert!(unit["name"].as_str().unwrap().starts_with(name), "{day}: {unit}");
        }
    }

    // Today's map loses nothing: what RAP reported stands with its successor's board.
    for by in ["month", "icb,month"] {
        let then = figures(&england.query("ENG", "2024-06..2025-03", by));
        let arguments = ["query", "ENG", "2024-06..2025-03", "--by", by, "--membership", "today"];
        assert_eq!(figures(&england.small.json(&arguments)), then, "{by}");
    }
}
