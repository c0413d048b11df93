//! Questions asked of a province-year in process, each beside the same current values in an indexed SQLite table.
//!
//! "Worked out" is a question whose rows are not at hand: its clock goes back by a millisecond each time, so that no
//! row kept before may be taken. "Again" is the same question asked once more with nothing changed in between.
//!
//! The directory and the table are made once and kept under the target directory. Every sum of SQLite's is held
//! against ours before anything is timed; then a table says how long each takes, and Criterion measures ours once
//! more for comparison from run to run. `-- --test` does all of it once on a county-month.

mod sqlite;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use banyan_aggregator::service::{CompletenessCall, QueryCall, Service};
use banyan_shared::catalogue::{Element, OverTime, OverUnits, Scope};
use banyan_shared::ids::Millis;
use banyan_shared::period::{Period, PeriodType};
use banyan_tests::model::shipped;
use banyan_tests::province::{Options, fixture};
use criterion::Criterion;
use sqlite::{Grouped, Table};

/// How long a question is asked again and again.
const BUDGET: Duration = Duration::from_secs(2);
/// A question is asked at most so often.
const ROUNDS_MAX: usize = 400;
/// How long SQLite is asked the same.
const BUDGET_SQLITE: Duration = Duration::from_secs(4);

const COUNTY: &str = "520502";
const CITY: &str = "5205";
const GROUP: &str = "CG-5201-1";
const PROVINCE: &str = "52";

/// A question, what SQLite is asked instead, and how long ours may take.
struct Case {
    name: String,
    ask: Ask,
    sql: Option<Grouped>,
    target_ms: Option<f64>,
}

enum Ask {
    Figures(QueryCall),
    Complete(CompletenessCall),
}

impl Ask {
    fn run(&self, service: &Service) -> Result<()> {
        match self {
            Ask::Figures(call) => drop(std::hint::black_box(service.figures(call)?)),
            Ask::Complete(call) => drop(std::hint::black_box(service.complete(call)?)),
        }
        Ok(())
    }
}

fn query(unit: &str, period: &str) -> QueryCall {
    QueryCall { unit: unit.to_owned(), period: period.to_owned(), ..QueryCall::default() }
}

/// Whether an element's sums over days and facilities are what SQLite can say of it.
fn is_flow(element: &Element) -> bool {
    element.over_time == OverTime::Sum
        && element.over_units == OverUnits::Sum
        && element.scope == Scope::Facility
}

/// The questions. `month` is the last one of `span`; `flows` are the elements SQLite is asked for, so that a question
/// for them is the very same on both sides: one for nothing in particular brings stocks, indicators and coverage too.
fn cases(month: Period, span: &str, small: bool, as_of: &str, flows: &[String]) -> Vec<Case> {
    let last = month.to_string();
    let by = |call: QueryCall, dim: &str| QueryCall { by: vec![dim.to_owned()], ..call };
    let one = |call: QueryCall| QueryCall { element: vec!["total_visits".to_owned()], ..call };
    let case = |name: &str, call: QueryCall, sql: Option<Grouped>, target_ms: Option<f64>| Case {
        name: name.to_owned(),
        ask: Ask::Figures(call),
        sql,
        target_ms,
    };
    let sums = |call: QueryCall| QueryCall { element: flows.to_vec(), ..call };
    let in_county = || Grouped::of(&last).in_county(COUNTY);
    let county = || query(COUNTY, &last);
    let mut cases = vec![
        case("county, month", county(), Some(in_county()), Some(0.2)),
        case("county, month, sums", sums(county()), Some(in_county()), Some(0.2)),
        case(
            "county, month, one element",
            one(county()),
            Some(in_county().element("total_visits")),
            Some(0.2),
        ),
        case(
            "county, month, by children",
            by(county(), "children"),
            Some(in_county().by("child")),
            None,
        ),
        case(
            "county, month, by facility",
            by(county(), "facility"),
            Some(in_county().by("code")),
            None,
        ),
        case("county, month, by day", by(county(), "day"), Some(in_county().by_day()), None),
        case(
            "county, month, one indicator",
            QueryCall { indicator: vec!["primary_visit_share".to_owned()], ..county() },
            None,
            None,
        ),
        case(
            "county, month, on today's map",
            QueryCall { membership: Some("today".to_owned()), ..county() },
            None,
            None,
        ),
        case(
            "county, month, as of mid-month",
            QueryCall { as_of: Some(as_of.to_owned()), ..county() },
            None,
            None,
        ),
        Case {
            name: "county, month, completeness by children".to_owned(),
            ask: Ask::Complete(CompletenessCall {
                unit: COUNTY.to_owned(),
                period: last.clone(),
                by: vec!["children".to_owned()],
                ..CompletenessCall::default()
            }),
            sql: None,
            target_ms: None,
        },
    ];
    if small {
        return cases;
    }
    let whole = || query(PROVINCE, span);
    cases.extend([
        case("county, year", query(COUNTY, span), Some(Grouped::of(span).in_county(COUNTY)), None),
        case(
            "county, year, by month",
            by(query(COUNTY, span), "month"),
            Some(Grouped::of(span).in_county(COUNTY).by_month()),
            None,
        ),
        case("city, month", query(CITY, &last), Some(Grouped::of(&last).in_city(CITY)), Some(1.0)),
        case(
            "city, month, sums",
            sums(query(CITY, &last)),
            Some(Grouped::of(&last).in_city(CITY)),
            Some(1.0),
        ),
        case(
            "city, month, by children",
            by(query(CITY, &last), "children"),
            Some(Grouped::of(&last).in_city(CITY).by("county")),
            None,
        ),
        case(
            "city group, month",
            query(GROUP, &last),
            Some(Grouped::of(&last).in_network(GROUP)),
            None,
        ),
        case("province, month", query(PROVINCE, &last), Some(Grouped::of(&last)), None),
        case(
            "province, month, by county",
            by(query(PROVINCE, &last), "county"),
            Some(Grouped::of(&last).by("county")),
            None,
        ),
        case("province, month, sums", sums(query(PROVINCE, &last)), Some(Grouped::of(&last)), None),
        case("province, year", whole(), Some(Grouped::of(span)), Some(50.0)),
        case("province, year, sums", sums(whole()), Some(Grouped::of(span)), Some(50.0)),
        case(
            "province, year, one element",
            one(whole()),
            Some(Grouped::of(span).element("total_visits")),
            Some(50.0),
        ),
        Case {
            name: "province, month, completeness by county".to_owned(),
            ask: Ask::Complete(CompletenessCall {
                unit: PROVINCE.to_owned(),
                period: last.clone(),
                by: vec!["county".to_owned()],
                ..CompletenessCall::default()
            }),
            sql: None,
            target_ms: None,
        },
        Case {
            name: "province, year, completeness".to_owned(),
            ask: Ask::Complete(CompletenessCall {
                unit: PROVINCE.to_owned(),
                period: span.to_owned(),
                ..CompletenessCall::default()
            }),
            sql: None,
            target_ms: None,
        },
    ]);
    cases
}

impl Case {
    /// What Criterion and its filter call it.
    fn id(&self) -> String {
        self.name.replace(", ", "_").replace([' ', '\''], "_")
    }
}

/// The median of as many rounds as fit into the budget, at least one, in ms.
fn median(budget: Duration, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let begun = Instant::now();
    let mut rounds = Vec::new();
    while rounds.is_empty() || rounds.len() < ROUNDS_MAX && begun.elapsed() < budget {
        let round = Instant::now();
        work()?;
        rounds.push(round.elapsed());
    }
    rounds.sort_unstable();
    Ok(rounds[rounds.len() / 2].as_secs_f64() * 1e3)
}

/// Holds our answer against SQLite's sums: every flow of every row. How many sums agree.
fn agree(service: &Service, case: &Case, table: &Table) -> Result<usize> {
    let (Ask::Figures(call), Some(sql)) = (&case.ask, &case.sql) else { return Ok(0) };
    let answer = serde_json::to_value(service.figures(call)?)?;
    let state = service.state().read();
    let catalogue = state.catalogue.clone();
    drop(state);
    let rows = answer["rows"].as_array().context("an answer has rows")?;
    let mut same = 0;
    for (group, element, sum, reports) in table.sums(sql)? {
        let at = catalogue.element(&element).context("elements are the catalogue's")?;
        if !is_flow(&catalogue.elements[at.at()]) {
            continue;
        }
        let row = rows.iter().find(|row| match &group {
            None => true,
            Some(group) => {
                [&row["key"]["unit"], &row["key"]["period"]].iter().any(|key| *key == group)
            }
        });
        let found = row.map(|row| &row["elements"][&element]);
        let figure = found.map(|found| (found["value"].as_u64(), found["reports"].as_u64()));
        if figure != Some((Some(sum), Some(reports))) {
            bail!(
                "{}: {element} of {group:?}: SQLite {sum} of {reports}, ours {found:?}",
                case.name
            );
        }
        same += 1;
    }
    if same == 0 {
        bail!("{}: nothing to compare", case.name);
    }
    Ok(same)
}

fn main() -> Result<()> {
    // As Criterion has it: `cargo bench` says so, and everything else is a trial.
    let said = |word: &str| std::env::args().any(|argument| argument == word);
    let small = said("--test") || !said("--bench");
    let options = if small {
        Options {
            from: "2026-03".parse()?,
            months: 1,
            seed: 7,
            below: vec![COUNTY.to_owned()],
            ..Options::before("2026-06-01".parse()?)
        }
    } else {
        let now: Millis = jiff::Timestamp::now().into();
        Options::before(shipped()?.0.day_at(now))
    };
    let begun = Instant::now();
    let made = fixture(&options, |_| {})?;
    eprintln!(
        "the directory: {:.1} s; {}",
        begun.elapsed().as_secs_f64(),
        serde_json::to_string(&made.summary)?
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        // Some time after midnight, so that the clock may go back.
        let clock = Arc::new(AtomicI64::new(shipped()?.0.midnight(options.end()).0 + 3_600_000));
        let begun = Instant::now();
        let told = clock.clone();
        let now = Arc::new(move || Millis(told.load(Ordering::Relaxed)));
        let (service, running) = Service::open(&made.centre(), now, None).await?;
        eprintln!("opened: {:.2} s", begun.elapsed().as_secs_f64());
        bench((&service, &clock), &options, &made.dir, small)?;
        drop(service);
        running.stop().await
    })
}

fn bench(
    (service, clock): (&Service, &AtomicI64),
    options: &Options,
    dir: &std::path::Path,
    small: bool,
) -> Result<()> {
    let months = options.all_months();
    let (first, last) = (options.from, *months.last().context("there is a month")?);
    let span = format!("{first}..{last}");
    let state = service.state().read();
    let begun = Instant::now();
    let table = Table::open(&dir.join("current.sqlite"), &state, last.last_day())?;
    eprintln!("the table: {} rows, {:.1} s", table.rows()?, begun.elapsed().as_secs_f64());
    let middle = Period::containing(PeriodType::Month, last.first_day()).first_day().plus(14);
    let as_of = state.catalogue.midnight(middle).timestamp().to_string();
    let flows = state.catalogue.elements.iter().filter(|element| is_flow(element));
    let flows: Vec<String> = flows.map(|element| element.code.to_string()).collect();
    drop(state);
    let mut cases = cases(last, &span, small, &as_of, &flows);
    // Criterion's filter is ours too.
    if let Some(filter) = std::env::args().skip(1).find(|argument| !argument.starts_with('-')) {
        cases.retain(|case| case.id().contains(&filter));
    }
    println!(
        "| question | first | worked out | again | SQLite | ratio | ratio again | target | sums compared |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for case in &cases {
        let begun = Instant::now();
        case.ask.run(service)?;
        let cold = begun.elapsed().as_secs_f64() * 1e3;
        let same = agree(service, case, &table)?;
        let worked_out = median(BUDGET, || {
            clock.fetch_sub(1, Ordering::Relaxed);
            case.ask.run(service)
        })?;
        let ours = median(BUDGET, || case.ask.run(service))?;
        let (sqlite, ratio) = match &case.sql {
            None => ("".to_owned(), " | ".to_owned()),
            Some(sql) => {
                let theirs = median(BUDGET_SQLITE, || table.sums(sql).map(drop))?;
                let ratios = format!("{:.0} × | {:.0} ×", theirs / worked_out, theirs / ours);
                (format!("{theirs:.2} ms"), ratios)
            }
        };
        let target = case.target_ms.map_or_else(String::new, |target| {
            format!("{target} ms{}", if ours > target { ", missed" } else { "" })
        });
        println!(
            "| {} | {cold:.2} ms | {worked_out:.3} ms | {ours:.3} ms | {sqlite} | {ratio} | {target} | {same} |",
            case.name
        );
    }
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let mut group = criterion.benchmark_group("queries");
    for case in &cases {
        group.bench_function(case.id(), |bencher| {
            // It was answered a moment ago.
            bencher.iter(|| {
                case.ask.run(service).expect("a question answered before is answered again")
            });
        });
    }
    group.finish();
    criterion.final_summary();
    Ok(())
}
