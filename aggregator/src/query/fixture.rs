//! A small country for the tests of cube and query.

use banyan_shared::catalogue::Catalogue;
use banyan_shared::ids::{AgentId, Epoch, Millis, UnitCode, VersionId};
use banyan_shared::organisation::Organisation;
use banyan_shared::report::{Content, EnteredAt, How, Value};
use banyan_shared::tables::registry::{TableName, Tables};

use super::{Engine, Plans, SiteStates};
use crate::cube::{AcceptedVersion, Cube};

pub(crate) const CATALOGUE: &str = include_str!("fixture.toml");

pub(crate) fn catalogue() -> Catalogue {
    Catalogue::load(CATALOGUE.as_bytes()).unwrap_or_else(|errors| {
        let lines: Vec<_> =
            errors.iter().map(|e| e.text(banyan_shared::catalogue::Lang::En)).collect();
        panic!("{}", lines.join("\n"))
    })
}

pub(crate) const UNITS: &str = "\
code,name,kind,parent,opened,closed,status,succeeded_by,name_en
P,省,province,,,,,,Province
C1,一县,county,P,,,,,County One
C2,二县,county,P,,,,,County Two
T1,一镇,township,C1,,,,,
T2,二镇,township,C1,,,,,
T3,三镇,township,C2,,,,,
A,甲诊所,clinic,T1,,,,,
B,乙诊所,clinic,T1,,,,,
M,移诊所,clinic,T1,,2026-03-01,,,
M,移诊所,clinic,T3,2026-03-01,,,,
K,闭诊所,clinic,T2,,2026-01-11,,A,
N,新诊所,clinic,T2,2026-01-28,,,,
D,丁诊所,clinic,T3,,,,,
H1,一县医院,hospital,C1,,,,,
H2,二县医院,hospital,C2,,,,,
B1,一县统计岗,desk,C1,,,,,
PL,拟建诊所,clinic,T2,2026-01-01,,planned,,
X,外省医院,external,,,,,,
";
pub(crate) const NETWORKS: &str = "\
code,name,kind,area,opened,closed,status
G1,一县医共体,community,C1,,,
G2,二县医共体,community,C2,2026-02-01,,
L1,联盟一,alliance,,,,
L2,联盟二,alliance,,,,
";
pub(crate) const MEMBERS: &str = "\
network,unit,role,from,to
G1,H1,lead,,
G1,C1,member,,
G2,H2,lead,,
G2,C2,member,,
L1,A,member,,
L1,H1,lead,,
L2,A,member,,
L2,D,member,,
L2,X,member,,
";

pub(crate) fn organisation(catalogue: &Catalogue) -> Organisation {
    build(catalogue, UNITS, "")
}

pub(crate) fn build(catalogue: &Catalogue, units: &str, extensions: &str) -> Organisation {
    let mut files = vec![
        (TableName::Units, "units.csv", units.as_bytes()),
        (TableName::Networks, "networks.csv", NETWORKS.as_bytes()),
        (TableName::Members, "members.csv", MEMBERS.as_bytes()),
    ];
    if !extensions.is_empty() {
        files.push((TableName::Extensions, "extensions.csv", extensions.as_bytes()));
    }
    let tables = Tables::parse(&files).unwrap_or_else(|errors| panic!("{errors:#?}"));
    Organisation::build(catalogue, &tables).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

/// A country with its cube, to which reports are added one by one.
pub(crate) struct World {
    pub(crate) catalogue: Catalogue,
    pub(crate) organisation: Organisation,
    pub(crate) cube: Cube,
    pub(crate) sites: SiteStates,
    pub(crate) plans: Plans,
    pub(crate) next: u64,
}

pub(crate) fn number(text: &str) -> Value {
    match text {
        "" => Value::Missing,
        "NA" => Value::NotApplicable,
        n => Value::Number(n.parse().unwrap()),
    }
}

impl World {
    pub(crate) fn new() -> World {
        let catalogue = catalogue();
        let organisation = organisation(&catalogue);
        let mut cube = Cube::new(&catalogue);
        super::reserve(&mut cube, &catalogue, &organisation);
        World {
            catalogue,
            organisation,
            cube,
            sites: SiteStates::default(),
            plans: Plans::default(),
            next: 1,
        }
    }

    pub(crate) fn engine(&self) -> Engine<'_> {
        Engine {
            catalogue: &self.catalogue,
            organisation: &self.organisation,
            cube: &self.cube,
            sites: &self.sites,
            plans: &self.plans,
        }
    }

    /// A moment on a local day.
    pub(crate) fn at(&self, day: &str, hour: u8) -> Millis {
        self.catalogue.moment(day.parse().unwrap(), hour, 0)
    }

    /// Applies a report: values by line, received at a local day and hour.
    pub(crate) fn put(
        &mut self,
        facility: &str,
        form: &str,
        period: &str,
        values: &[&str],
        at: (&str, u8),
    ) -> VersionId {
        self.put_as(facility, form, period, values, at, How::Direct)
    }

    pub(crate) fn put_as(
        &mut self,
        facility: &str,
        form: &str,
        period: &str,
        values: &[&str],
        at: (&str, u8),
        how: How,
    ) -> VersionId {
        self.put_by(7, facility, form, period, values, at, how)
    }

    /// The same by one of several writers, none of whom knows of another.
    #[allow(clippy::too_many_arguments, reason = "what a report is made of")]
    pub(crate) fn put_by(
        &mut self,
        writer: u8,
        facility: &str,
        form: &str,
        period: &str,
        values: &[&str],
        at: (&str, u8),
        how: How,
    ) -> VersionId {
        let received_at = self.at(at.0, at.1);
        let id = VersionId {
            writer: AgentId([writer; 6]),
            epoch: Epoch { counter: 1, random: 1 },
            seq: self.next,
        };
        let version = AcceptedVersion {
            facility: facility.parse().unwrap(),
            form: self.catalogue.form(form).unwrap(),
            period: period.parse().unwrap(),
            id,
            content: Content {
                values: values.iter().map(|text| number(text)).collect(),
                how,
                entered_by: None,
                reason: None,
                override_code: None,
                withdrawn: false,
                entered_at: EnteredAt { minute: received_at.minute(), doubtful: false },
                replaces: vec![],
            },
            received_at,
            position: self.next,
        };
        self.next += 1;
        self.cube.apply(&self.catalogue, version).unwrap();
        id
    }

    /// Signs off a facility's report of a form and period as it stands.
    pub(crate) fn sign(&mut self, facility: &str, form: &str, period: &str, at: (&str, u8)) {
        let decided = crate::cube::Decided {
            by: "stat".to_owned(),
            at: self.at(at.0, at.1),
            position: self.next,
        };
        self.next += 1;
        let facility: UnitCode = facility.parse().unwrap();
        let (form, period) = (form.parse().unwrap(), period.parse().unwrap());
        let versions = self.cube.versions(&facility, &form, period);
        let seen: Vec<_> = versions
            .iter()
            .map(|version| (&facility, version.id.writer, version.id.epoch, version.id.seq))
            .collect();
        let what = (decided, crate::act::Stage::Signed, facility.to_string());
        self.cube.stage((&form, period), what, &[&facility], &seen);
    }
}
