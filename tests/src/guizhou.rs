//! Makes the registry of Guizhou (`seeds/guizhou`) from the public registry of places (`seeds/source`).
//!
//! Promises the same bytes for the same source. Places, their names and codes are data; facilities are
//! derived from places by rule; what is invented carries 示例 in its name. `seeds/README.md` tells which is which.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, ensure};
use banyan_shared::tables::TableName;
use serde::Deserialize;

/// A place of `registry.csv` or `villages.csv`.
#[derive(Clone, Debug, Deserialize)]
struct Place {
    code: String,
    name: String,
    level: String,
    parent: String,
}

/// Mark of everything invented.
const EXAMPLE: &str = "（示例）";
/// The township that becomes a street, and the day.
const STREET: (&str, &str, &str) = ("520502101", "梨树街道（示例）", "2026-03-01");
/// The township where the last village clinic is merged into the first, and the day.
const MERGER: (&str, &str) = ("520502103", "2026-02-01");
/// The county with two communities, and the first township code of the second one.
const TWO_COMMUNITIES: (&str, &str) = ("520502", "520502107");
/// How many sub-centres there are in the plan.
const SUBCENTRES: usize = 108;

const PRIMARY: &str = "township_health_centre;community_health_centre";
const COMMUNITY: &str = "county_hospital;maternal_child_hospital;township_health_centre;community_health_centre;village_clinic";
const CATCHMENT: &str = "township_health_centre;community_health_centre;village_clinic";

/// A city group: its number in the city, its districts with the number of secondary hospitals each.
struct Group {
    city: &'static str,
    number: usize,
    districts: &'static [(&'static str, usize)],
}

/// Five groups, 21 secondary hospitals; the split is invented.
const GROUPS: [Group; 5] = [
    Group { city: "5201", number: 1, districts: &[("520102", 3)] },
    Group { city: "5201", number: 2, districts: &[("520103", 3), ("520115", 2)] },
    Group { city: "5201", number: 3, districts: &[("520111", 3), ("520112", 2), ("520113", 2)] },
    Group { city: "5203", number: 1, districts: &[("520302", 3)] },
    Group { city: "5203", number: 2, districts: &[("520303", 3)] },
];
/// Outlying towns of a grid's district that stay in their county community.
const NOT_IN_GRID: [&str; 4] = ["520303107", "520303108", "520303109", "520303110"];

/// The five open regional centres: code, name, place, type of hospital.
const CENTRES: [(&str, &str, &str, &str); 5] = [
    ("5201-RC", "北京积水潭医院贵州医院", "5201", "general"),
    ("5201-RC2", "上海儿童医学中心贵州医院", "5201", "children"),
    ("5201-RC3", "广东省中医院贵州医院", "5201", "tcm"),
    ("5201-RC4", "中山大学附属第一医院贵州医院", "5201", "general"),
    ("520502-RC", "浙江省人民医院毕节医院", "520502", "general"),
];
/// Members from outside the province.
const EXTERNALS: [(&str, &str); 4] = [
    ("EXT-5306", "云南省昭通市联盟医院（示例）"),
    ("EXT-4505", "广西壮族自治区北海市联盟医院（示例）"),
    ("EXT-6529", "新疆维吾尔自治区阿克苏地区联盟医院（示例）"),
    ("EXT-5406", "西藏自治区那曲市联盟医院（示例）"),
];

/// 国务院办公厅关于2026年部分节假日安排的通知, 2025-11-04: first and last day of each holiday, and the
/// weekend days worked instead.
const HOLIDAYS: [(&str, &str, &str, &[&str]); 7] = [
    ("元旦", "2026-01-01", "2026-01-03", &["2026-01-04"]),
    ("春节", "2026-02-15", "2026-02-23", &["2026-02-14", "2026-02-28"]),
    ("清明节", "2026-04-04", "2026-04-06", &[]),
    ("劳动节", "2026-05-01", "2026-05-05", &["2026-05-09"]),
    ("端午节", "2026-06-19", "2026-06-21", &[]),
    ("中秋节", "2026-09-25", "2026-09-27", &[]),
    ("国庆节", "2026-10-01", "2026-10-07", &["2026-09-20", "2026-10-10"]),
];

/// The source files' bytes.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// `registry.csv`
    pub registry: &'a [u8],
    /// `villages.csv`
    pub villages: &'a [u8],
}

/// One table being written.
struct Rows {
    writer: csv::Writer<Vec<u8>>,
}

impl Rows {
    fn new(columns: &[&str]) -> anyhow::Result<Rows> {
        let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
        writer.write_record(columns)?;
        Ok(Rows { writer })
    }

    fn add<const N: usize>(&mut self, row: [&str; N]) -> anyhow::Result<()> {
        Ok(self.writer.write_record(row)?)
    }

    fn done(self) -> anyhow::Result<Vec<u8>> {
        self.writer.into_inner().map_err(|e| anyhow::anyhow!("{e}"))
    }
}

fn places(bytes: &[u8], what: &str) -> anyhow::Result<Vec<Place>> {
    let mut places: Vec<Place> = csv::Reader::from_reader(bytes)
        .deserialize()
        .collect::<Result<_, _>>()
        .with_context(|| format!("reading {what}"))?;
    places.sort_by(|a, b| a.code.cmp(&b.code));
    Ok(places)
}

/// The files of `seeds/guizhou` for this source, by table.
///
/// # Errors
/// If the source cannot be read or no longer holds what the rules name.
pub fn generate(source: Source<'_>) -> anyhow::Result<Vec<(TableName, Vec<u8>)>> {
    let map = Map::read(source)?;
    let (units, attributes) = map.units()?;
    let (networks, members) = map.networks()?;
    let mut files = vec![
        (TableName::Units, units.done()?),
        (TableName::Attributes, attributes.done()?),
        (TableName::Networks, networks.done()?),
        (TableName::Members, members.done()?),
        (TableName::Calendar, calendar()?.done()?),
    ];
    // Nothing is known for these: no row in duties means that every form is due for ever.
    for empty in [TableName::Duties, TableName::Codes, TableName::Contacts] {
        files.push((empty, Rows::new(empty.columns().0)?.done()?));
    }
    Ok(files)
}

struct Map {
    registry: Vec<Place>,
    villages: Vec<Place>,
    names: HashMap<String, String>,
}

impl Map {
    fn read(source: Source<'_>) -> anyhow::Result<Map> {
        let registry = places(source.registry, "registry.csv")?;
        let villages = places(source.villages, "villages.csv")?;
        let named = registry.iter().map(|p| (p.code.clone(), p.name.clone()));
        let names: HashMap<String, String> = named.collect();
        let grid = GROUPS.iter().flat_map(|g| g.districts.iter().map(|(code, _)| *code));
        let fixed = [STREET.0, MERGER.0, TWO_COMMUNITIES.0, TWO_COMMUNITIES.1];
        for code in grid.chain(fixed).chain(NOT_IN_GRID) {
            ensure!(names.contains_key(code), "the source no longer has {code}");
        }
        Ok(Map { registry, villages, names })
    }

    fn level(&self, level: &str) -> impl Iterator<Item = &Place> {
        let level = level.to_owned();
        self.registry.iter().filter(move |p| p.level == level)
    }

    fn townships_of(&self, county: &str) -> Vec<&Place> {
        self.level("township").filter(|p| p.parent == county).collect()
    }

    fn units(&self) -> anyhow::Result<(Rows, Rows)> {
        let (required, optional) = TableName::Units.columns();
        // English names are not known, so that column is left out.
        let columns: Vec<&str> = required.iter().chain(&optional[..2]).copied().collect();
        let mut units = Rows::new(&columns)?;
        let mut attributes = Rows::new(TableName::Attributes.columns().0)?;
        for place in &self.registry {
            let kind = match place.level.as_str() {
                "prefecture" => "city",
                level => level,
            };
            let (code, name, parent) = (&*place.code, &*place.name, &*place.parent);
            if code == STREET.0 {
                units.add([code, name, kind, parent, "", STREET.2, "", ""])?;
                units.add([code, STREET.1, kind, parent, STREET.2, "", "", ""])?;
            } else {
                units.add([code, name, kind, parent, "", "", "", ""])?;
            }
            match place.level.as_str() {
                "prefecture" => self.city_hospitals(place, &mut units, &mut attributes)?,
                "county" => county_units(place, &mut units, &mut attributes)?,
                "township" => self.centre(place, &mut units)?,
                _ => {}
            }
        }
        let mut clinics: BTreeMap<&str, Vec<&Place>> = BTreeMap::new();
        for village in &self.villages {
            clinics.entry(&village.parent).or_default().push(village);
        }
        for (township, villages) in clinics {
            let town =
                self.names.get(township).with_context(|| format!("no township {township}"))?;
            for village in &villages {
                let (code, name) = (&village.code, clinic_name(town, &village.name));
                units.add([code, &village.name, "village", township, "", "", "", ""])?;
                let merged =
                    township == MERGER.0 && villages.last().is_some_and(|v| v.code == *code);
                let (closed, heir) = if merged {
                    (MERGER.1, format!("{}-VC", villages[0].code))
                } else {
                    ("", String::new())
                };
                let clinic = format!("{code}-VC");
                units.add([&clinic, &name, "village_clinic", code, "", closed, "", &heir])?;
            }
        }
        for (code, name, parent, of) in CENTRES {
            units.add([code, name, "regional_centre", parent, "", "", "", ""])?;
            attributes.add([code, "hospital_type", of, "", ""])?;
            attributes.add([code, "grade", "national", "", ""])?;
            attributes.add([code, "hospital_level", "tertiary_a", "", ""])?;
        }
        attributes.add([
            "520502-RC",
            "performance_grade",
            "b_plus_plus",
            "2023-01-01",
            "2024-01-01",
        ])?;
        let planned = "北京协和医院贵州医院（规划）";
        units.add(["52-RC", planned, "regional_centre", "52", "", "", "planned", ""])?;
        for (code, name) in EXTERNALS {
            units.add([code, name, "external", "", "", "", "", ""])?;
        }
        Ok((units, attributes))
    }

    fn city_hospitals(
        &self,
        city: &Place,
        units: &mut Rows,
        attributes: &mut Rows,
    ) -> anyhow::Result<()> {
        let groups = GROUPS.iter().filter(|g| g.city == city.code).count().max(1);
        for n in 1..=groups {
            let code = numbered(&city.code, "CT", n);
            let name = format!("{}第{}医院{EXAMPLE}", city.name, ordinal(n));
            units.add([&code, &name, "city_hospital", &city.code, "", "", "", ""])?;
            attributes.add([&code, "hospital_type", "general", "", ""])?;
            attributes.add([&code, "hospital_level", "tertiary_a", "", ""])?;
        }
        Ok(())
    }

    /// A township health centre for a 镇 or 乡, a community health centre for a 街道.
    fn centre(&self, place: &Place, units: &mut Rows) -> anyhow::Result<()> {
        const STREET_KIND: &str = "community_health_centre";
        let county =
            self.names.get(&place.parent).with_context(|| format!("no {}", place.parent))?;
        let named = |town: &str| format!("{county}{town}社区卫生服务中心");
        let at = &*place.code;
        if place.name.ends_with("街道") {
            let code = format!("{at}-CH");
            return units.add([&code, &named(&place.name), STREET_KIND, at, "", "", "", ""]);
        }
        let code = format!("{at}-TH");
        let name = format!("{county}{}卫生院", place.name);
        let closed = if at == STREET.0 { STREET.2 } else { "" };
        units.add([&code, &name, "township_health_centre", at, "", closed, "", ""])?;
        if at == STREET.0 {
            let name = named(STREET.1.trim_end_matches(EXAMPLE)) + EXAMPLE;
            units.add([&code, &name, STREET_KIND, at, STREET.2, "", "", ""])?;
        }
        Ok(())
    }

    fn networks(&self) -> anyhow::Result<(Rows, Rows)> {
        let mut networks = Rows::new(TableName::Networks.columns().0)?;
        let (required, optional) = TableName::Members.columns();
        let columns: Vec<&str> = required.iter().chain(optional).copied().collect();
        let mut members = Rows::new(&columns)?;
        for county in self.level("county") {
            self.communities(county, &mut networks, &mut members)?;
        }
        self.city_groups(&mut networks, &mut members)?;
        self.catchments(&mut networks, &mut members)?;

        let counties: Vec<String> = self
            .level("county")
            .filter(|c| c.parent == "5205")
            .map(|c| format!("{}-CN", c.code))
            .collect();
        let alliance = "SA-520502-1";
        networks.add([
            alliance,
            "浙江省人民医院毕节医院专科联盟（示例）",
            "specialist_alliance",
            "5205",
        ])?;
        members.add([alliance, "520502-RC", "lead", "", "", "", "", ""])?;
        let remote = "RN-520502-1";
        networks.add([
            remote,
            "浙江省人民医院毕节医院远程超声会诊网（示例）",
            "remote_network",
            "5205",
        ])?;
        members.add([remote, "520502-RC", "provider", "", "", "", "", ""])?;
        for unit in counties.iter().map(String::as_str).chain(EXTERNALS.map(|(code, _)| code)) {
            members.add([alliance, unit, "member", "", "", "", "", ""])?;
            members.add([remote, unit, "requester", "", "", "", "", ""])?;
        }
        let programme = "RP-52";
        networks.add([
            programme,
            "贵州省国家区域医疗中心项目",
            "regional_centre_programme",
            "52",
        ])?;
        for code in CENTRES.map(|c| c.0).into_iter().chain(["52-RC"]) {
            members.add([programme, code, "project_hospital", "", "", "", "", ""])?;
        }
        let support = "PS-5206-1";
        networks.add([
            support,
            "中山大学附属第一医院贵州医院帮扶铜仁三县（示例）",
            "paired_support",
            "5206",
        ])?;
        let start = "2024-11-01";
        members.add([support, "5201-RC4", "donor", start, "", "", "", ""])?;
        for name in ["德江县", "沿河土家族自治县", "松桃苗族自治县"] {
            let county = self.level("county").find(|c| c.name == name).context(name)?;
            let code = format!("{}-CN", county.code);
            members.add([support, &code, "recipient", start, "", "", "", ""])?;
        }
        Ok((networks, members))
    }

    fn communities(
        &self,
        county: &Place,
        networks: &mut Rows,
        members: &mut Rows,
    ) -> anyhow::Result<()> {
        let at = &*county.code;
        let code = format!("CC-{at}");
        let two = at == TWO_COMMUNITIES.0;
        let first = if two { "第一" } else { "" };
        let example = if two { EXAMPLE } else { "" };
        let name = format!("{}{first}县域医共体{example}", county.name);
        networks.add([&code, &name, "county_community", at])?;
        let lead = format!("{at}-CN");
        // In a grid the primary facilities belong to the city group; what is left is the district's.
        let kinds = if in_grid(at) { "maternal_child_hospital;village_clinic" } else { COMMUNITY };
        members.add([&code, at, "member", "", "", kinds, "", ""])?;
        for role in ["lead", "shared_centre"] {
            members.add([&code, &lead, role, "", "", "", "", ""])?;
        }
        for town in NOT_IN_GRID
            .iter()
            .filter(|town| self.registry.iter().any(|p| p.code == **town && p.parent == at))
        {
            members.add([&code, town, "member", "", "", CATCHMENT, "", ""])?;
        }
        if two {
            let code = format!("CC-{at}-2");
            let name = format!("{}第二县域医共体{EXAMPLE}", county.name);
            networks.add([&code, &name, "county_community", at])?;
            let lead = format!("{at}-CN2");
            for role in ["lead", "shared_centre"] {
                members.add([&code, &lead, role, "", "", "", "", ""])?;
            }
            for town in self.townships_of(at) {
                if *town.code >= *TWO_COMMUNITIES.1 {
                    members.add([&code, &town.code, "member", "", "", CATCHMENT, "", ""])?;
                }
            }
        }
        Ok(())
    }

    fn city_groups(&self, networks: &mut Rows, members: &mut Rows) -> anyhow::Result<()> {
        for group in &GROUPS {
            let code = format!("CG-{}-{}", group.city, group.number);
            let city = self.names.get(group.city).context("no city")?;
            let name = format!("{city}第{}城市医疗集团{EXAMPLE}", ordinal(group.number));
            let area: Vec<&str> = group.districts.iter().map(|(at, _)| *at).collect();
            networks.add([&code, &name, "city_group", &area.join(";")])?;
            let lead = numbered(group.city, "CT", group.number);
            members.add([&code, &lead, "lead", "", "", "", "yes", ""])?;
            for (at, hospitals) in group.districts {
                members.add([&code, at, "member", "", "", PRIMARY, "yes", ""])?;
                for n in 1..=*hospitals {
                    let hospital = numbered(at, "CN", n);
                    members.add([&code, &hospital, "member", "", "", "", "yes", ""])?;
                }
                for town in self.townships_of(at) {
                    if NOT_IN_GRID.contains(&&*town.code) {
                        members.add([&code, &town.code, "none", "", "", "", "", ""])?;
                    }
                }
            }
        }
        Ok(())
    }

    /// One catchment a county outside the grids, the rest to the counties with most townships; each is a
    /// run of four or five 镇 and 乡 with the centre of one of them as sub-centre. The choice is invented.
    fn catchments(&self, networks: &mut Rows, members: &mut Rows) -> anyhow::Result<()> {
        let mut counties: Vec<(&Place, Vec<&Place>, usize)> = Vec::new();
        for county in self.level("county").filter(|c| !in_grid(&c.code)) {
            let mut towns = self.townships_of(&county.code);
            towns.retain(|t| !t.name.ends_with("街道") && t.code != STREET.0);
            ensure!(towns.len() >= 3, "{} has too few townships for a sub-centre", county.name);
            counties.push((county, towns, 1));
        }
        let mut left =
            SUBCENTRES.checked_sub(counties.len()).context("more counties than sub-centres")?;
        while left > 0 {
            let (_, _, number) = counties
                .iter_mut()
                .max_by_key(|(county, towns, number)| {
                    (towns.len() / (*number + 1), std::cmp::Reverse(county.code.clone()))
                })
                .context("no county")?;
            *number += 1;
            left -= 1;
        }
        for (county, towns, number) in counties {
            let mut from = 0;
            for n in 0..number {
                let size = (4 + n % 2).min(towns.len() - from);
                ensure!(
                    size >= 3,
                    "{} has too few townships for {number} sub-centres",
                    county.name
                );
                let around = &towns[from..from + size];
                from += size;
                let own = around[size / 2];
                let code = format!("SC-{}", own.code);
                let name = format!("{}{}次中心辐射片{EXAMPLE}", county.name, own.name);
                let area: Vec<&str> = around.iter().map(|t| &*t.code).collect();
                networks.add([&code, &name, "subcentre_catchment", &area.join(";")])?;
                let centre = format!("{}-TH", own.code);
                members.add([&code, &centre, "subcentre", "", "", "", "", ""])?;
                for town in around {
                    members.add([&code, &town.code, "member", "", "", CATCHMENT, "", ""])?;
                }
            }
        }
        Ok(())
    }
}

fn in_grid(county: &str) -> bool {
    GROUPS.iter().any(|g| g.districts.iter().any(|(at, _)| *at == county))
}

/// How many hospitals of kind CN a county has.
fn county_hospitals(county: &str) -> usize {
    let in_group = |g: &Group| g.districts.iter().find(|(at, _)| *at == county).map(|(_, n)| *n);
    let two = usize::from(county == TWO_COMMUNITIES.0) + 1;
    GROUPS.iter().find_map(in_group).unwrap_or(two)
}

fn county_units(county: &Place, units: &mut Rows, attributes: &mut Rows) -> anyhow::Result<()> {
    let (at, name) = (&*county.code, &*county.name);
    for n in 1..=county_hospitals(at) {
        let code = numbered(at, "CN", n);
        let (called, of) = match (n, at == TWO_COMMUNITIES.0) {
            (1, _) => (format!("{name}人民医院"), "general"),
            (_, true) => (format!("{name}中医医院{EXAMPLE}"), "tcm"),
            (_, false) => (format!("{name}第{}医院{EXAMPLE}", ordinal(n)), "general"),
        };
        units.add([&code, &called, "county_hospital", at, "", "", "", ""])?;
        attributes.add([&code, "hospital_type", of, "", ""])?;
        attributes.add([&code, "hospital_level", "secondary", "", ""])?;
        if n == 1 && !in_grid(at) {
            attributes.add([&code, "assisted", "yes", "", ""])?;
        }
    }
    let code = format!("{at}-MC");
    let called = format!("{name}妇幼保健院");
    units.add([&code, &called, "maternal_child_hospital", at, "", "", "", ""])?;
    attributes.add([&code, "hospital_type", "maternal_child", "", ""])?;
    let desk = format!("{at}-CB");
    let called = format!("{name}卫生健康局统计岗");
    units.add([&desk, &called, "county_desk", at, "", "", "", ""])
}

/// `520502-CN`, `520502-CN2`…
fn numbered(place: &str, kind: &str, n: usize) -> String {
    if n == 1 { format!("{place}-{kind}") } else { format!("{place}-{kind}{n}") }
}

fn ordinal(n: usize) -> &'static str {
    ["零", "一", "二", "三", "四", "五"].get(n).copied().unwrap_or("十")
}

/// The clinic of a village: township, the village without its committee, 卫生室.
fn clinic_name(township: &str, village: &str) -> String {
    // The last four are slips of the source.
    const COMMITTEES: [(&str, &str); 8] = [
        ("村民委员会", "村"),
        ("居民委员会", "社区"),
        ("村委会", "村"),
        ("居委会", "社区"),
        ("居民委会员", "社区"),
        ("村委员会", "村"),
        ("村民委会员", "村"),
        ("和民委员会", "村"),
    ];
    let mut name = village.to_owned();
    if let Some((committee, ending)) = COMMITTEES.iter().find(|(c, _)| village.ends_with(c)) {
        name.truncate(village.len() - committee.len());
        if !name.ends_with(ending) {
            name += ending;
        }
    }
    format!("{township}{name}卫生室")
}

fn calendar() -> anyhow::Result<Rows> {
    let mut rows = Rows::new(TableName::Calendar.columns().0)?;
    for (name, first, last, worked) in HOLIDAYS {
        let mut day: banyan_shared::period::Date = first.parse()?;
        let last = last.parse()?;
        while day <= last {
            rows.add(["52", &day.to_string(), "off", name])?;
            day = day.plus(1);
        }
        for day in worked {
            rows.add(["52", day, "working", &format!("{name}调休上班")])?;
        }
    }
    Ok(rows)
}
