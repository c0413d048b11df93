//! Publishing a catalogue: what it changes, whether the figures already here keep their meaning under it, and
//! putting it in force for every agent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, Result};
use banyan_shared::catalogue::{Catalogue, Lang};
use banyan_shared::wire::{deflate, inflate};
use serde::{Deserialize, Serialize};

use super::registry::extension_gone;
use super::{Service, say, usage};
use crate::act::{Act, Extended};
use crate::cube::Cube;
use crate::state::{State, build_organisation, load_catalogue};

/// A catalogue to be looked at or put in force.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PublishCall {
    /// The TOML, as base64.
    pub toml: String,
    /// Whether only to look.
    pub dry_run: bool,
    /// Language of messages.
    pub lang: Lang,
}

/// A change of a catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogueChange {
    /// `added`, `removed` or `changed`.
    pub what: String,
    /// The list: `element`, `form`, `line`, `rule`, `indicator`, `kind`…
    pub list: String,
    /// Its code; a line's is `FORM.ELEMENT`; empty for a key of the catalogue itself.
    pub code: String,
    /// The key that changed.
    pub key: Option<String>,
    /// What stood before.
    pub before: Option<String>,
    /// What stands now.
    pub after: Option<String>,
}

impl CatalogueChange {
    /// The change as one line of text.
    pub fn text(&self) -> String {
        let sign = match self.what.as_str() {
            "added" => "+",
            "removed" => "-",
            _ => "~",
        };
        let mut text = format!("{sign} {} {}", self.list, self.code);
        if let Some(key) = &self.key {
            let none = String::from("∅");
            let (before, after) =
                (self.before.as_ref().unwrap_or(&none), self.after.as_ref().unwrap_or(&none));
            text += &format!("  {key}: {before} → {after}");
        }
        text
    }
}

/// What publishing a catalogue does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishReport {
    /// Whether it is in force now.
    pub published: bool,
    /// The version in force before.
    pub from: String,
    /// The new version.
    pub version: String,
    /// The SHA-256 of its bytes.
    pub hash: String,
    /// What changes.
    pub changes: Vec<CatalogueChange>,
    /// What is accepted and worth a second look.
    pub warnings: Vec<String>,
    /// Agents that get it with their next message.
    pub agents: usize,
}

/// Lists of the catalogue file whose entries have codes.
const LISTS: [&str; 9] =
    ["unit", "kind", "network_kind", "role", "attribute", "element", "form", "rule", "indicator"];

type Table = toml::map::Map<String, toml::Value>;

fn shown(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(n) => n.to_string(),
        toml::Value::Float(n) => n.to_string(),
        toml::Value::Boolean(yes) => yes.to_string(),
        toml::Value::Datetime(at) => at.to_string(),
        toml::Value::Array(list) => {
            let parts: Vec<String> = list.iter().map(shown).collect();
            format!("[{}]", parts.join(", "))
        }
        toml::Value::Table(table) => {
            let parts: Vec<String> =
                table.iter().map(|(key, value)| format!("{key} = {}", shown(value))).collect();
            format!("{{{}}}", parts.join(", "))
        }
    }
}

/// The entries of a list by the value of their key.
fn by_key(table: &Table, list: &str, key: &str) -> BTreeMap<String, Table> {
    let entries = table.get(list).and_then(toml::Value::as_array).into_iter().flatten();
    let tables = entries.filter_map(toml::Value::as_table);
    tables.filter_map(|entry| Some((entry.get(key)?.as_str()?.to_owned(), entry.clone()))).collect()
}

fn keys_changed(
    (list, code): (&str, &str),
    (old, new): (&Table, &Table),
    without: &[&str],
    out: &mut Vec<CatalogueChange>,
) {
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for key in keys.into_iter().filter(|key| !without.contains(&key.as_str())) {
        let (before, after) = (old.get(key), new.get(key));
        if before != after {
            out.push(CatalogueChange {
                what: "changed".into(),
                list: list.into(),
                code: code.into(),
                key: Some(key.clone()),
                before: before.map(shown),
                after: after.map(shown),
            });
        }
    }
}

fn list_changed(
    list: &str,
    named: impl Fn(&str) -> String,
    (old, new): (&BTreeMap<String, Table>, &BTreeMap<String, Table>),
    out: &mut Vec<CatalogueChange>,
) {
    let codes: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let whole = |what: &str, code: &str| CatalogueChange {
        what: what.into(),
        list: list.into(),
        code: named(code),
        key: None,
        before: None,
        after: None,
    };
    for code in codes {
        match (old.get(code), new.get(code)) {
            (None, Some(_)) => out.push(whole("added", code)),
            (Some(_), None) => out.push(whole("removed", code)),
            (Some(a), Some(b)) => keys_changed((list, &named(code)), (a, b), &["line"], out),
            (None, None) => {}
        }
    }
}

/// What a catalogue file changes against another: entries by their codes, whatever their order.
pub(crate) fn diff(old: &Table, new: &Table) -> Vec<CatalogueChange> {
    let mut out = Vec::new();
    keys_changed(("catalogue", ""), (old, new), &LISTS, &mut out);
    for list in LISTS {
        let (a, b) = (by_key(old, list, "code"), by_key(new, list, "code"));
        list_changed(list, str::to_owned, (&a, &b), &mut out);
        if list != "form" {
            continue;
        }
        for (code, form) in &b {
            let Some(before) = a.get(code) else { continue };
            let lines = (by_key(before, "line", "element"), by_key(form, "line", "element"));
            let named = |element: &str| format!("{code}.{element}");
            list_changed("line", named, (&lines.0, &lines.1), &mut out);
        }
    }
    out
}

/// Whether any report of a form has ever answered an element; of the form at all, if none is named.
fn has_data(cube: &Cube, form: &str, element: Option<&str>) -> bool {
    let Ok(form) = form.parse() else { return false };
    let Some(store) = cube.form(&form) else { return false };
    let slots = u32::try_from(store.slots().len()).unwrap_or(u32::MAX);
    let Some(element) = element else {
        return store.blocks().any(|(_, block)| (0..slots).any(|slot| block.present(slot)));
    };
    let Some(column) = store.column(element) else { return false };
    store.blocks().any(|(_, block)| (0..slots).any(|slot| block.value(column, slot).is_answer()))
}

/// Why a catalogue cannot take the place of the one in force, everything at once; and what is worth a second
/// look.
pub(crate) fn compatible(state: &State, new: &Catalogue, lang: Lang) -> (Vec<String>, Vec<String>) {
    let old = &*state.catalogue;
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    let taken = |held: &&crate::state::HeldCatalogue| {
        held.catalogue.version == new.version && held.catalogue.hash != new.hash
    };
    if state.catalogues.values().any(|held| taken(&held)) {
        errors.push(say(
            lang,
            format!("版本号 {} 已用于另一份目录，请换一个新版本号", new.version),
            format!("version {} is another catalogue's already: give it a new one", new.version),
        ));
    }
    if old.time_zone.iana_name() != new.time_zone.iana_name() {
        warnings.push(say(
            lang,
            "时区改变：截止时间和“今天”都会改变",
            "the time zone changes: due times and \"today\" change with it",
        ));
    }
    for (code, had, has) in old.elements.iter().filter_map(|had| {
        Some((&had.code, had, &new.elements[new.element(had.code.as_str())?.at()]))
    }) {
        let meaning = |e: &banyan_shared::catalogue::Element| {
            [
                ("unit", e.unit.clone()),
                ("scope", format!("{:?}", e.scope)),
                ("over_time", format!("{:?}", e.over_time)),
                ("over_units", format!("{:?}", e.over_units)),
                ("dims", format!("{:?}", e.dims)),
            ]
        };
        let changed: Vec<&str> = meaning(had)
            .iter()
            .zip(meaning(has))
            .filter(|(a, b)| a.1 != b.1)
            .map(|(a, _)| a.0)
            .collect();
        if !changed.is_empty() && had.definition == has.definition {
            let keys = changed.join(", ");
            errors.push(say(
                lang,
                format!("数据元 {code} 的 {keys} 改变，但 definition 未变：含义变了就要有新的定义版本或新的代码"),
                format!("element {code}: {keys} changed while `definition` did not: another meaning needs a new definition version or a new code"),
            ));
        } else if !changed.is_empty() {
            warnings.push(say(
                lang,
                format!("数据元 {code} 的含义改变（{}）：已有数据按新的含义汇总", changed.join("、")),
                format!("element {code} means something else ({}): what is here is added up by the new meaning", changed.join(", ")),
            ));
        }
        if has.max < had.max {
            warnings.push(say(
                lang,
                format!("数据元 {code} 的上限由 {} 降为 {}", had.max, has.max),
                format!("element {code}: the limit falls from {} to {}", had.max, has.max),
            ));
        }
    }
    for form in &old.forms {
        let code = form.code.as_str();
        let Some(has) = new.form(code).map(|at| &new.forms[at.at()]) else {
            if has_data(&state.cube, code, None) {
                errors.push(say(
                    lang,
                    format!("报表 {code} 已有数据，不能删除：请给它写上 to 日期"),
                    format!("form {code} has data and cannot be removed: give it a `to` date"),
                ));
            }
            continue;
        };
        if has.period_type != form.period_type {
            errors.push(say(
                lang,
                format!(
                    "报表 {code} 的周期由 {} 改为 {}：请另立一张报表",
                    form.period_type.name(),
                    has.period_type.name()
                ),
                format!(
                    "form {code}: its period type changes from {} to {}: make another form",
                    form.period_type.name(),
                    has.period_type.name()
                ),
            ));
        }
        for line in &form.lines {
            let element = old.elements[line.element.at()].code.as_str();
            let there = new.element(element).and_then(|e| has.line_of(e)).map(|at| &has.lines[at]);
            match there {
                None if has_data(&state.cube, code, Some(element)) => errors.push(say(
                    lang,
                    format!("报表 {code} 的数据元 {element} 已有数据，不能删除：请给该行写上 to 日期"),
                    format!("form {code}: element {element} has data and cannot be removed: give the line a `to` date"),
                )),
                Some(there) if there.max < line.max => warnings.push(say(
                    lang,
                    format!("报表 {code} 的数据元 {element} 的上限由 {} 降为 {}", line.max, there.max),
                    format!("form {code}: the limit of {element} falls from {} to {}", line.max, there.max),
                )),
                Some(there) if there.required && !line.required => warnings.push(say(
                    lang,
                    format!("报表 {code} 的数据元 {element} 改为必填：已有报表可能变为不完整"),
                    format!("form {code}: {element} becomes required: reports that are here may become incomplete"),
                )),
                _ => {}
            }
        }
    }
    for kind in &old.kinds {
        if let Some(has) = new.kind(kind.code.as_str()).map(|at| &new.kinds[at.at()])
            && has.class != kind.class
        {
            errors.push(say(
                lang,
                format!("机构类别 {} 的 class 改变", kind.code),
                format!("kind {}: its class changes", kind.code),
            ));
        }
    }
    // Kinds, roles, attributes, forms and indicators that the registry names must still be there.
    let extended = state.history.extended();
    if let Err(found) = build_organisation(new, &state.tables, &extended) {
        errors.extend(found.iter().map(|error| error.text(lang)));
    }
    let has = |catalogue: &Catalogue, row: &Extended| catalogue.form(row.form.as_str()).is_some();
    let gone = extended.iter().filter(|row| has(old, row) && !has(new, row));
    warnings.extend(gone.map(|row| extension_gone(row, lang)));
    (errors, warnings)
}

impl Service {
    /// Checks a catalogue against the one in force and what is held under it, says what it changes, and puts
    /// it in force unless `dry_run`: agents get it, signed, with their next message.
    ///
    /// # Errors
    /// [`super::Usage`] with every error of the file and every reason against it, or what the disk says.
    pub async fn publish(self: &Arc<Self>, by: &str, call: PublishCall) -> Result<PublishReport> {
        let lang = call.lang;
        let bytes = data_encoding::BASE64
            .decode(call.toml.as_bytes())
            .map_err(|_| usage("the catalogue's bytes are not base64"))?;
        let service = self.clone();
        let work = move || service.examine(&bytes, lang);
        let (compressed, mut report) =
            tokio::task::spawn_blocking(work).await.context("the comparison panicked")??;
        if call.dry_run || report.changes_nothing() {
            return Ok(report);
        }
        // Once more when its turn comes: the registry may have changed, or data have come.
        let check = move |state: &State| {
            let catalogue =
                load_catalogue(&compressed).map_err(|errors| usage(errors.join("\n")))?;
            let (errors, _) = compatible(state, &catalogue, lang);
            if !errors.is_empty() {
                return Err(usage(errors.join("\n")));
            }
            Ok(vec![Act::Catalogue { toml: compressed }])
        };
        self.act(by, Box::new(check)).await?;
        report.published = true;
        Ok(report)
    }

    fn examine(&self, toml: &[u8], lang: Lang) -> Result<(Vec<u8>, PublishReport)> {
        let new = Catalogue::load(toml).map_err(|errors| {
            usage(errors.iter().map(|error| error.text(lang)).collect::<Vec<_>>().join("\n"))
        })?;
        let state = self.state.read();
        let (errors, warnings) = compatible(&state, &new, lang);
        if !errors.is_empty() {
            return Err(usage(errors.join("\n")));
        }
        let held = &state.catalogues[&state.catalogue.hash];
        let old = inflate(&held.compressed, banyan_shared::limits::CATALOGUE_BYTES_MAX)?;
        let read = |bytes: &[u8]| -> Result<Table> {
            toml::from_str(std::str::from_utf8(bytes)?).context("the catalogue was read before")
        };
        let changes = diff(&read(&old)?, &read(toml)?);
        let agents = state.agents.values().filter(|agent| agent.revoked.is_none()).count();
        let report = PublishReport {
            published: false,
            from: state.catalogue.version.clone(),
            version: new.version.clone(),
            hash: new.hash.to_string(),
            changes,
            warnings,
            agents: if new.hash == state.catalogue.hash { 0 } else { agents },
        };
        Ok((deflate(toml), report))
    }
}

impl PublishReport {
    /// Whether the catalogue is in force already.
    fn changes_nothing(&self) -> bool {
        self.changes.is_empty() && self.from == self.version && self.agents == 0
    }
}
