//! A small country for the tests of whole programs: two counties, a few clinics, real processes.
//!
//! Dates are in early 2026, long past, so that what is due, late and missing does not hang on the day the
//! tests run.

use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant};

use banyan_agent::{Driver, Options};
use banyan_tests::{Agent, Aggregator, World};
use serde_json::{Value, json};

/// The registry. `V3-VC` opens in March, `V4-VC` closes in February, two clinics share a name, `V7-VC` is only
/// planned.
pub(crate) const UNITS: &str = "\
code,name,kind,parent,opened,closed,status,succeeded_by
P,试验省,province,,,,,
S,试验市,city,P,,,,
K1,甲县,county,S,,,,
K2,乙县,county,S,,,,
T1,一镇,township,K1,,,,
T2,二镇,township,K1,,,,
T3,三镇,township,K2,,,,
V1,一村,village,T1,,,,
V2,二村,village,T1,,,,
V3,三村,village,T1,,,,
V4,四村,village,T2,,,,
V5,五村,village,T3,,,,
V6,六村,village,T3,,,,
V7,七村,village,T2,,,,
V1-VC,一村卫生室,village_clinic,V1,,,,
V2-VC,二村卫生室,village_clinic,V2,,,,
V3-VC,三村卫生室,village_clinic,V3,2026-03-01,,,
V4-VC,四村卫生室,village_clinic,V4,,2026-02-01,,
V5-VC,东村卫生室,village_clinic,V5,,,,
V6-VC,东村卫生室,village_clinic,V6,,,,
V7-VC,七村卫生室,village_clinic,V7,2026-01-01,,planned,
T1-TH,一镇卫生院,township_health_centre,T1,,,,
T3-TH,三镇卫生院,township_health_centre,T3,,,,
K1-CN,甲县人民医院,county_hospital,K1,,,,
";

const NETWORKS: &str = "code,name,kind,area\nCC-K1,甲县县域医共体,county_community,K1\n";

const MEMBERS: &str = "network,unit,role,from,to\nCC-K1,K1,member,,\nCC-K1,K1-CN,lead,,\n";

/// How long anything that goes over the line may take: only what never comes about takes so long.
pub(crate) const SOON: Duration = Duration::from_secs(120);

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Done {
        Done {
            code: output.status.code().expect("the program was not killed"),
            out: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
            err: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
        }
    }
}

impl Done {
    /// That it ended with this code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Done {
        assert_eq!(self.code, code, "{}\n{}", self.out, self.err);
        self
    }
}

/// The centre of the small country, or of another, and its agents.
pub(crate) struct Small {
    pub(crate) world: World,
    pub(crate) served: Option<Aggregator>,
    /// What `init` said.
    pub(crate) init: String,
}

impl Small {
    /// A serving centre of the small country.
    pub(crate) fn new() -> Small {
        Small::with(UNITS, &[("networks", NETWORKS), ("members", MEMBERS)])
    }

    /// A serving centre of the small country that takes plain MQTT, so that any client can say anything.
    pub(crate) fn plain() -> Small {
        Small::made(UNITS, &[("networks", NETWORKS), ("members", MEMBERS)], false)
    }

    /// A serving centre with these units and other tables.
    pub(crate) fn with(units: &str, tables: &[(&str, &str)]) -> Small {
        Small::made(units, tables, true)
    }

    fn made(units: &str, tables: &[(&str, &str)], tls: bool) -> Small {
        let mut world = World::new(None).unwrap();
        world.tls = tls;
        let mut arguments = Vec::new();
        for (table, text) in [("units", units)].iter().chain(tables) {
            let path = world.dir().join(format!("{table}.csv"));
            fs::write(&path, text).unwrap();
            arguments.extend([format!("--{table}"), path.display().to_string()]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let init = world.init(&arguments).unwrap();
        let served = world.serve().unwrap();
        Small { world, served: Some(served), init }
    }

    /// The serving aggregator.
    pub(crate) fn served(&self) -> &Aggregator {
        self.served.as_ref().expect("it is serving")
    }

    /// Runs a command of the aggregator.
    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        self.world.command().args(arguments).output().unwrap().into()
    }

    /// Runs a command of the aggregator that must succeed; what it wrote to stdout.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        self.run(arguments).exits(0).out
    }

    /// Runs a command of the aggregator that must succeed; its JSON.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = self.ok(&[arguments, &["--format", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// A code for these facilities, the first as home.
    pub(crate) fn code(&self, units: &[&str]) -> String {
        let request = json!({ "command": "enrol", "units": units, "expires_s": 3600 });
        let made = self.served().call(&request).unwrap();
        made["code"].as_str().unwrap().to_owned()
    }

    /// A real agent in `agents/NAME`, enrolled over the line for these facilities, the first as home.
    pub(crate) fn agent(&self, name: &str, units: &[&str]) -> Agent {
        let agent = self.world.agent(name);
        agent.ask(&["enroll", &self.code(units)]).unwrap();
        agent
    }

    /// An element of a query's only row.
    #[track_caller]
    pub(crate) fn element(&self, unit: &str, period: &str, element: &str) -> Value {
        let answer = self.query(unit, period);
        assert_eq!(answer["rows"].as_array().unwrap().len(), 1, "{answer}");
        answer["rows"][0]["elements"][element].clone()
    }

    /// The answer to a query.
    #[track_caller]
    pub(crate) fn query(&self, unit: &str, period: &str) -> Value {
        self.json(&["query", unit, period])
    }

    /// Everything the figures say, completeness too, without what changes with every question.
    #[track_caller]
    pub(crate) fn figures(&self, unit: &str, period: &str) -> Value {
        let mut answer = self.json(&["query", unit, period, "--by", "facility,day"]);
        for part in ["as_of", "freshness"] {
            answer.as_object_mut().unwrap().remove(part);
        }
        answer
    }

    /// Writes a file into the world's folder.
    pub(crate) fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.world.dir().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Puts another `units.csv` in force; what the command said.
    #[track_caller]
    pub(crate) fn put_units(&self, units: &str) -> Value {
        let path = self.file("units.csv", units);
        self.json(&["import-units", path.to_str().unwrap(), "--apply"])
    }
}

/// Runs a command of an agent.
pub(crate) fn run(agent: &Agent, arguments: &[&str]) -> Done {
    agent.output(arguments).unwrap().into()
}

/// `record vc_daily` with arguments, which must succeed.
#[track_caller]
pub(crate) fn record(agent: &Agent, day: &str, arguments: &[&str]) -> String {
    run(agent, &[&["record", "vc_daily", day], arguments].concat()).exits(0).out
}

/// `sync`, which must succeed.
#[track_caller]
pub(crate) fn sync(agent: &Agent) {
    run(agent, &["sync", "--timeout", "30s"]).exits(0);
}

/// Lets an agent of the library talk to the centre until everything it holds has a receipt.
pub(crate) async fn settle(options: Options) {
    let dir = options.data_dir.clone();
    let driver = Driver::open(options).unwrap().without_local();
    let handle = driver.handle();
    let deadline = Instant::now() + SOON;
    let stop = async {
        while !handle.is_settled(0).await {
            assert!(Instant::now() < deadline, "{} is not settled", dir.display());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    driver.run(stop).await.unwrap();
}

/// A command's JSON.
#[track_caller]
pub(crate) fn json_of(agent: &Agent, arguments: &[&str]) -> Value {
    let text = run(agent, &[arguments, &["--format", "json"]].concat()).exits(0).out;
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}
