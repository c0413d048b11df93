//! What goes on the log of a command: its name, of whom it is, and of which sort, if it goes there at all.

use banyan_shared::catalogue::Class;
use banyan_shared::ids::Millis;
use banyan_shared::organisation::{Found, Lookup, Organisation};
use banyan_shared::period::Date;

use super::AuditKind;
use super::rules::{Asked, Past, asked_of, has_dim, shows_sites};
use crate::http::Request;
use crate::state::State;

fn words(parts: &[&str]) -> String {
    parts.iter().copied().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

fn places(units: &[String], below: &[String]) -> String {
    let below: Vec<String> = below.iter().map(|unit| format!("below {unit}")).collect();
    let all: Vec<&str> = units.iter().chain(&below).map(String::as_str).collect();
    words(&all)
}

fn scope(text: Option<&str>) -> &str {
    text.unwrap_or("*")
}

/// A command's name, and of whom or what it is.
pub(crate) fn described(request: &Request) -> (&'static str, String) {
    let asked = |asked: Asked<'_>| words(&[asked.place, asked.period, &asked.by.join(",")]);
    let of_question = || asked_of(request).map(asked).unwrap_or_default();
    match request {
        Request::Query(_) => ("query", of_question()),
        Request::Completeness(_) => ("completeness", of_question()),
        Request::Anomalies(_) => ("anomalies", of_question()),
        Request::Report(call) => ("report", words(&[&call.facility, &call.form, &call.period])),
        Request::Audit(call) => ("audit", call.user.clone().unwrap_or_default()),
        Request::ExportCounts(call) => {
            ("export", words(&[&call.unit, &call.period, "→", &call.path]))
        }
        Request::Backup { path, identity: true } => ("backup --identity", path.clone()),
        Request::Backup { path, .. } => ("backup", path.clone()),
        Request::Enrol(one) => {
            let older = one.replaces.as_deref().unwrap_or_default();
            ("enroll", words(&[&places(&one.units, &one.below), older]))
        }
        Request::EnrolEach(each) => ("enroll --each", places(&each.units, &[])),
        Request::EnrolStick(stick) => ("enroll --stick", places(&[], &stick.below)),
        Request::Expand { below, .. } => ("expand", places(&[], below)),
        Request::Assign { agent, scope, remove } => {
            let what = if *remove { "assign --remove" } else { "assign" };
            (what, words(&[agent, &places(&scope.units, &scope.below)]))
        }
        Request::Revoke { agent, .. } => ("revoke", agent.clone()),
        Request::Claims { .. } => ("claims", String::new()),
        Request::DecideClaim(call) => {
            (if call.approve { "approve claim" } else { "refuse claim" }, call.agent.clone())
        }
        Request::ImportUnits(call) => {
            let files: Vec<&str> = call.tables.iter().map(|table| table.file.as_str()).collect();
            ("import-units", words(&files))
        }
        Request::Extend(call) => {
            let what = if call.due.is_some() { "extend" } else { "waive" };
            (what, words(&[&call.form, &call.unit, &call.period]))
        }
        Request::Publish(_) => ("catalogue publish", String::new()),
        Request::Correct(call) => ("correct", words(&[&call.facility, &call.form, &call.period])),
        Request::Withdraw(call) => ("withdraw", words(&[&call.facility, &call.form, &call.period])),
        Request::Return(call) => ("return", words(&[&call.facility, &call.form, &call.period])),
        Request::Approve(call) => ("approve", words(&[&call.facility, &call.form, &call.period])),
        Request::Signoff(call) => ("signoff", words(&[&call.unit, &call.form, &call.period])),
        Request::Lock(call) => ("lock", words(&[&call.unit, &call.form, &call.period])),
        Request::Unlock(call) => ("unlock", words(&[&call.unit, &call.form, &call.period])),
        Request::ImportCounts(call) => {
            ("import", format!("{} ({} rows)", call.file, call.rows.len()))
        }
        Request::BundleImport(call) => {
            let agent = call.heading().map(|(agent, _)| agent.to_string()).unwrap_or_default();
            ("bundle import", words(&[&agent, &call.file]))
        }
        Request::UserAdd(call) => {
            let to = scope(call.scope.as_deref());
            ("user add", words(&[&call.name, call.role.code(), to]))
        }
        Request::UserPassword(call) => ("user passwd", call.name.clone()),
        Request::UserRemove { name } => ("user remove", name.clone()),
        Request::UserList => ("user list", String::new()),
        Request::TokenAdd(call) => {
            let to = scope(call.scope.as_deref());
            ("token add", words(&[&call.name, call.role.code(), to]))
        }
        Request::TokenRemove { name } => ("token remove", name.clone()),
        Request::TokenList => ("token list", String::new()),
        Request::Units { unit, .. } => ("units", unit.clone().unwrap_or_default()),
        Request::Fleet { .. } => ("fleet", String::new()),
        Request::Parked { .. } => ("parked", String::new()),
        Request::Keys => ("keys show", String::new()),
        Request::Verify { .. } => ("verify", String::new()),
        Request::Revocations => ("revocations", String::new()),
        Request::Status => ("status", String::new()),
    }
}

/// Whether a question's answer shows single sites, by the registry it is answered from.
fn of_sites(org: &Organisation, today: Date, asked: Asked<'_>) -> bool {
    if has_dim(asked.by, "facility") {
        return true;
    }
    let Lookup::One(found) = org.find(asked.place, today) else { return false };
    let reports = |unit| matches!(org.class(unit), Class::Facility | Class::Desk);
    matches!(found, Found::Unit(unit) if reports(unit))
        || has_dim(asked.by, "children") && shows_sites(org, found, today)
}

/// Of which sort it is; none if it is not put down.
pub(crate) fn kind_of(
    state: &State,
    now: Millis,
    request: &Request,
    past: Option<Past<'_>>,
) -> Option<AuditKind> {
    match request {
        Request::Query(_) | Request::Completeness(_) => {
            let (org, today) = match past {
                None => (&*state.organisation, state.catalogue.day_at(now)),
                Some(past) => (past.organisation, past.catalogue.day_at(past.at)),
            };
            let asked = asked_of(request).filter(|asked| of_sites(org, today, *asked));
            asked.map(|_| AuditKind::Read)
        }
        // Each row is of one site.
        Request::Report(_) | Request::Anomalies(_) | Request::Audit(_) => Some(AuditKind::Read),
        Request::ExportCounts(_) | Request::Backup { .. } => Some(AuditKind::Export),
        Request::ImportUnits(call) => call.apply.then_some(AuditKind::Change),
        Request::Publish(call) => (!call.dry_run).then_some(AuditKind::Change),
        Request::ImportCounts(call) => (!call.dry_run).then_some(AuditKind::Change),
        Request::Enrol(_)
        | Request::EnrolEach(_)
        | Request::EnrolStick(_)
        | Request::Assign { .. }
        | Request::Revoke { .. }
        | Request::DecideClaim(_)
        | Request::Extend(_)
        | Request::Correct(_)
        | Request::Withdraw(_)
        | Request::Return(_)
        | Request::Approve(_)
        | Request::Signoff(_)
        | Request::Lock(_)
        | Request::Unlock(_)
        | Request::BundleImport(_)
        | Request::UserAdd(_)
        | Request::UserPassword(_)
        | Request::UserRemove { .. }
        | Request::TokenAdd(_)
        | Request::TokenRemove { .. } => Some(AuditKind::Change),
        Request::Units { .. }
        | Request::Expand { .. }
        | Request::Fleet { .. }
        | Request::Parked { .. }
        | Request::Claims { .. }
        | Request::Keys
        | Request::Verify { .. }
        | Request::Revocations
        | Request::Status
        | Request::UserList
        | Request::TokenList => None,
    }
}
