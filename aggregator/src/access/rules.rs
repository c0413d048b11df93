//! Which role and which scope each command needs.
//!
//! A place is in one's scope if it is there today or was on the last day of the period asked for; with it
//! go its history and, on each map, whoever stands in it. A place counts as a network member's or a
//! network's only if all of its facilities do. What lies outside is refused whether or not there is
//! anything; that a code exists is no secret, the registry is public.
//!
//! A question about a moment of the past is answered from the registry of then: scopes and places are found
//! in that one, by their codes, and what today's registry knows under the same code must lie inside by it
//! too. No history goes with a place then: everyone who stood in it is looked at. What one of the two does
//! not show to be inside is refused.

use banyan_shared::catalogue::{Catalogue, Class, Lang, NetworkKindIx};
use banyan_shared::ids::{AgentId, Millis, UnitCode};
use banyan_shared::organisation::{Found, Lookup, NetworkIx, Organisation, UnitIx};
use banyan_shared::period::{Date, Period, Span};
use banyan_shared::wire::{EnrolRequest, Envelope, Grant, Introduction, Kind, decode};

use super::{Denied, Role, Scope, Who};
use crate::http::Request;
use crate::query::Membership;
use crate::service::BundleCall;
use crate::state::State;

/// What a command needs beside the scope of the places it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    /// At least this role.
    pub(crate) role: Role,
    /// Which scope.
    pub(crate) over: Over,
}

/// Over what one has to have a say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// Anyone may: it says what is public, or leaves out what lies outside the scope.
    Nothing,
    /// The places named.
    Places,
    /// Everything.
    Everything,
    /// The server itself: it reads or writes files there.
    Server,
}

/// What a command needs.
pub(crate) fn need(request: &Request) -> Need {
    use Over::{Everything, Nothing, Places, Server};
    use Role::{Admin, Operator, Viewer};
    let (role, over) = match request {
        Request::Units { .. } => (Viewer, Nothing),
        Request::Query(_)
        | Request::Completeness(_)
        | Request::Anomalies(_)
        | Request::Report(_) => (Viewer, Places),
        Request::Fleet { .. } | Request::Parked { .. } => (Viewer, Nothing),
        Request::Status => (Viewer, Everything),
        Request::Enrol(_)
        | Request::EnrolEach(_)
        | Request::EnrolStick(_)
        | Request::Expand { .. }
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
        | Request::ImportCounts(_) => (Operator, Places),
        Request::Claims { .. } => (Operator, Nothing),
        Request::ImportUnits(_) | Request::Publish(_) | Request::Verify { .. } => {
            (Admin, Everything)
        }
        Request::Audit(_) | Request::Keys | Request::Revocations => (Admin, Everything),
        // Held to the scopes of the users and tokens named where these are known.
        Request::UserAdd(_)
        | Request::UserPassword(_)
        | Request::UserList
        | Request::UserRemove { .. }
        | Request::TokenAdd(_)
        | Request::TokenList
        | Request::TokenRemove { .. } => (Admin, Nothing),
        Request::Backup { .. } | Request::ExportCounts(_) => (Admin, Server),
    };
    Need { role, over }
}

fn role_denied(who: &Who, role: Role) -> Denied {
    Denied::new(
        format!("您的角色是 {}，此操作需要 {}", who.role.code(), role.code()),
        format!("your role is {}; this needs {}", who.role.code(), role.code()),
    )
}

impl Denied {
    /// That something lies outside someone's scope.
    pub(crate) fn outside(who: &Who, what: &str) -> Denied {
        Denied::new(
            format!("“{what}”不在您的范围（{}）内", who.scope),
            format!("{what:?} is outside your scope ({})", who.scope),
        )
    }
}

fn everything_denied(who: &Who) -> Denied {
    Denied::new(
        format!("此操作涉及全部机构，超出您的范围（{}）", who.scope),
        format!("this is about everything, which is more than your scope ({})", who.scope),
    )
}

/// A question for figures, as far as scopes go.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked<'a> {
    /// The unit or network, as typed.
    pub(crate) place: &'a str,
    /// The period or range, as typed.
    pub(crate) period: &'a str,
    /// On which map, as typed.
    pub(crate) membership: Option<&'a str>,
    /// As known at which moment, as typed.
    pub(crate) as_of: Option<&'a str>,
    /// The dimensions.
    pub(crate) by: &'a [String],
    /// The kind of network.
    pub(crate) network: Option<&'a str>,
    /// Language of messages.
    pub(crate) lang: Lang,
}

/// The question a command asks, if it asks one.
pub(crate) fn asked_of(request: &Request) -> Option<Asked<'_>> {
    match request {
        Request::Query(call) => Some(Asked {
            place: &call.unit,
            period: &call.period,
            membership: call.membership.as_deref(),
            as_of: call.as_of.as_deref(),
            by: &call.by,
            network: call.network.as_deref(),
            lang: call.lang,
        }),
        Request::Completeness(call) => Some(Asked {
            place: &call.unit,
            period: &call.period,
            membership: call.membership.as_deref(),
            as_of: call.as_of.as_deref(),
            by: &call.by,
            network: call.network.as_deref(),
            lang: call.lang,
        }),
        Request::Anomalies(call) => Some(Asked {
            place: &call.unit,
            period: &call.period,
            as_of: call.as_of.as_deref(),
            lang: call.lang,
            ..Asked::default()
        }),
        Request::Report(call) => Some(Asked {
            place: &call.facility,
            period: &call.period,
            as_of: call.as_of.as_deref(),
            lang: call.lang,
            ..Asked::default()
        }),
        Request::ExportCounts(call) => Some(Asked {
            place: &call.unit,
            period: &call.period,
            as_of: call.as_of.as_deref(),
            lang: call.lang,
            ..Asked::default()
        }),
        _ => None,
    }
}

pub(super) fn has_dim(by: &[String], dim: &str) -> bool {
    by.iter().flat_map(|text| text.split(',')).any(|text| text.trim() == dim)
}

/// Refuses what someone may not ask. A question about a moment of the past comes with its model.
///
/// # Errors
/// [`Denied`] saying what is missing.
pub(crate) fn check(
    state: &State,
    now: Millis,
    who: &Who,
    request: &Request,
    past: Option<Past<'_>>,
) -> Result<(), Denied> {
    let need = need(request);
    if who.role < need.role {
        return Err(role_denied(who, need.role));
    }
    match need.over {
        Over::Server if who.via != super::Via::Server => Err(Denied::new(
            "此命令读写服务器上的文件，只能在服务器上用命令行执行",
            "this reads or writes files on the server: only its own command line may",
        )),
        _ if who.sees_everything() => Ok(()),
        Over::Everything => Err(everything_denied(who)),
        Over::Places => Inside::new(state, now, who, past).request(request),
        Over::Nothing | Over::Server => Ok(()),
    }
}

/// Whether whoever has `outer` has `inner` as well.
pub(crate) fn covers(state: &State, outer: &Scope, inner: &Scope, now: Millis) -> bool {
    let org = &state.organisation;
    let found = match (outer, inner) {
        (Scope::Everything, _) => return true,
        (_, Scope::Everything) => return false,
        (outer, inner) if outer == inner => return true,
        (_, Scope::Unit(code)) => org.unit(code.as_str()).map(Found::Unit),
        (_, Scope::Network(code)) => org.network(code.as_str()).map(Found::Network),
    };
    let who = Who { scope: outer.clone(), ..Who::server() };
    found.is_some_and(|found| Inside::new(state, now, &who, None).place(found, None))
}

/// Whether the figures of a place are, or show, those of single sites.
pub(crate) fn shows_sites(org: &Organisation, found: Found, day: Date) -> bool {
    let reports = |unit: UnitIx| matches!(org.class(unit), Class::Facility | Class::Desk);
    match found {
        Found::Network(_) => true,
        Found::Unit(unit) => reports(unit) || org.children_on(unit, day).into_iter().any(reports),
    }
}

/// Catalogue and registry as known at a moment of the past.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Past<'a> {
    pub(crate) catalogue: &'a Catalogue,
    pub(crate) organisation: &'a Organisation,
    pub(crate) at: Millis,
}

/// A scope as a registry has it.
struct Held<'a> {
    org: &'a Organisation,
    today: Date,
    area: Option<UnitIx>,
    network: Option<NetworkIx>,
}

impl<'a> Held<'a> {
    fn new(org: &'a Organisation, today: Date, scope: &Scope) -> Held<'a> {
        let (area, network) = match scope {
            Scope::Everything => (None, None),
            Scope::Unit(code) => (org.unit(code.as_str()), None),
            Scope::Network(code) => (None, org.network(code.as_str())),
        };
        Held { org, today, area, network }
    }

    fn on(&self, unit: UnitIx, day: Date) -> bool {
        if let Some(area) = self.area {
            return self.org.is_below(unit, area, day);
        }
        let Some(network) = self.network else { return false };
        let kind = self.org.network_info(network).kind;
        self.org.networks_of(unit, day, Some(kind)).contains(&network)
    }

    /// Whether a unit is inside today or was on `day`.
    fn has(&self, unit: UnitIx, day: Option<Date>) -> bool {
        self.on(unit, self.today) || day.is_some_and(|day| self.on(unit, day))
    }

    /// Whether a place that a network serves is the scope's own to look at.
    fn serves(&self, unit: UnitIx) -> bool {
        let own = self.network.map(|own| &self.org.network_info(own).area[..]).unwrap_or_default();
        let mut own = own.iter().copied().chain(self.area);
        own.any(|area| self.org.is_below(unit, area, self.today))
    }

    /// The unit whose place another takes on the map of a day.
    fn stands_at(&self, unit: UnitIx, map: Date) -> UnitIx {
        self.org.successor_on(unit, map).unwrap_or(unit)
    }
}

/// What lies in someone's scope.
pub(crate) struct Inside<'a> {
    state: &'a State,
    catalogue: &'a Catalogue,
    who: &'a Who,
    /// The day of the moment asked for.
    day: Date,
    /// The registry the question is answered from.
    of: Held<'a>,
    /// Today's, where that is another.
    present: Option<Held<'a>>,
}

impl<'a> Inside<'a> {
    /// What lies in someone's scope now, or lay there at a moment of the past and still does.
    pub(crate) fn new(
        state: &'a State,
        now: Millis,
        who: &'a Who,
        past: Option<Past<'a>>,
    ) -> Inside<'a> {
        let today = state.catalogue.day_at(now);
        let present = Held::new(&state.organisation, today, &who.scope);
        let Some(Past { catalogue, organisation, at }) = past else {
            return Inside {
                state,
                catalogue: &state.catalogue,
                who,
                day: today,
                of: present,
                present: None,
            };
        };
        let day = catalogue.day_at(at);
        if std::ptr::eq(organisation, &*state.organisation) {
            return Inside { state, catalogue, who, day, of: present, present: None };
        }
        let of = Held::new(organisation, day, &who.scope);
        Inside { state, catalogue, who, day, of, present: Some(present) }
    }

    /// What today's registry says of a unit of the registry of then: nothing against one it does not know.
    fn still(&self, unit: UnitIx, holds: impl Fn(&Held<'_>, UnitIx) -> bool) -> bool {
        let Some(present) = &self.present else { return true };
        let known = present.org.unit(self.of.org.code(unit).as_str());
        known.is_none_or(|unit| holds(present, unit))
    }

    /// Whether a unit is inside today or was on `day`.
    pub(crate) fn facility(&self, unit: UnitIx, day: Option<Date>) -> bool {
        self.who.sees_everything()
            || self.of.has(unit, day) && self.still(unit, |present, unit| present.has(unit, day))
    }

    fn facility_code(&self, code: &str, day: Option<Date>) -> bool {
        self.of.org.unit(code).is_some_and(|unit| self.facility(unit, day))
    }

    /// Whether an agent is inside: all it may report for is.
    pub(crate) fn agent(&self, id: &AgentId) -> bool {
        let agent = self.state.agents.get(id);
        let context = agent.and_then(|agent| self.state.contexts.get(&agent.newest));
        context.is_some_and(|context| self.all(&context.facilities))
    }

    fn all(&self, facilities: &[UnitCode]) -> bool {
        !facilities.is_empty()
            && facilities.iter().all(|code| self.facility_code(code.as_str(), None))
    }

    /// Whether a facility by code, or else the agent that speaks of it, is inside.
    pub(crate) fn entry(&self, facility: &str, period: &str, agent: &str) -> bool {
        let day = period.parse::<Period>().ok().map(Period::last_day);
        match self.of.org.unit(facility) {
            Some(unit) => self.facility(unit, day),
            None => agent.parse().is_ok_and(|id| self.agent(&id)),
        }
    }

    /// The days on which the map of a span may change, the last one at the end.
    fn days(&self, span: Option<Span>) -> Vec<Date> {
        let Some(span) = span else { return vec![self.of.today] };
        let (first, last) = (span.first_day(), span.last_day());
        let mut days = vec![self.of.today, first];
        days.extend(self.of.org.changes_in(first, last));
        days.push(last);
        days
    }

    /// Whether a unit or network is inside, today or for figures of a span.
    pub(crate) fn place(&self, found: Found, span: Option<Span>) -> bool {
        if self.who.sees_everything() {
            return true;
        }
        let days = self.days(span);
        let last = days.last().copied();
        // With a place of one's own goes its history; not with what another moment knew as its history.
        let own = match found {
            Found::Unit(unit) if self.of.org.class(unit) != Class::Administrative => {
                return self.facility(unit, last);
            }
            Found::Unit(unit) if self.of.area.is_some() => {
                if !self.facility(unit, last) {
                    return false;
                }
                true
            }
            Found::Unit(_) => false,
            Found::Network(network) if self.of.network == Some(network) => true,
            Found::Network(network) if !self.serves_inside(network) => return false,
            Found::Network(_) => false,
        };
        if own && self.present.is_none() {
            return true;
        }
        let mut any = own;
        for day in days {
            let reporters = match found {
                Found::Unit(unit) => self.of.org.facilities_below(unit, day),
                Found::Network(network) => self.of.org.facilities_in(network, day),
            };
            any |= !reporters.is_empty();
            if !reporters.into_iter().all(|unit| self.facility(unit, Some(day))) {
                return false;
            }
        }
        any
    }

    /// Whether the area of a network is inside: its page shows the area's own figures.
    fn serves_inside(&self, network: NetworkIx) -> bool {
        let serves = |unit: &UnitIx| {
            self.of.serves(*unit) && self.still(*unit, |present, unit| present.serves(unit))
        };
        self.of.org.network_info(network).area.iter().all(serves)
    }

    /// Whether every network that the division of an area by networks would show is inside: each is shown
    /// whole, with its members elsewhere.
    pub(crate) fn networks_of(
        &self,
        area: UnitIx,
        kind: Option<NetworkKindIx>,
        span: Option<Span>,
        map: Option<Date>,
    ) -> bool {
        if self.who.sees_everything() {
            return true;
        }
        let org = self.of.org;
        let mut touched: Vec<NetworkIx> = Vec::new();
        for day in self.days(span).into_iter().chain(map) {
            for unit in org.facilities_below(area, day) {
                touched.extend(org.networks_of(unit, day, kind));
            }
            let serves = |n: &NetworkIx| {
                let info = org.network_info(*n);
                kind.is_none_or(|kind| info.kind == kind)
                    && org.is_in_force(*n, day)
                    && info.area.iter().any(|unit| org.is_below(*unit, area, day))
            };
            touched.extend(org.networks().filter(serves));
        }
        touched.sort_unstable();
        touched.dedup();
        touched.into_iter().all(|network| self.place(Found::Network(network), span))
    }

    /// Whether everyone who stands in a place on the map of a day is inside.
    pub(crate) fn on_map(&self, found: Found, map: Date, last: Date) -> bool {
        if self.who.sees_everything() {
            return true;
        }
        let org = self.of.org;
        let stands_in = |unit: UnitIx| match found {
            Found::Unit(area) => org.is_below(unit, area, map),
            Found::Network(network) => {
                let kind = org.network_info(network).kind;
                org.networks_of(unit, map, Some(kind)).contains(&network)
            }
        };
        org.reporters().iter().all(|unit| {
            let at = self.of.stands_at(*unit, map);
            let still =
                |present: &Held<'_>, unit| present.has(present.stands_at(unit, map), Some(last));
            !stands_in(at) || self.facility(at, Some(last)) && self.still(*unit, still)
        })
    }

    fn denied(&self, what: &str) -> Denied {
        Denied::outside(self.who, what)
    }

    /// What a text names in the registry that answers; none if nothing or several things: whoever carries
    /// out the command says so.
    fn find(&self, text: &str) -> Option<Found> {
        match self.of.org.find(text, self.day) {
            Lookup::One(found) => Some(found),
            Lookup::Candidates(_) => None,
        }
    }

    /// Refuses a question about what lies outside.
    pub(crate) fn asked(&self, asked: Asked<'_>) -> Result<(), Denied> {
        if self.who.sees_everything() {
            return Ok(());
        }
        let Some(found) = self.find(asked.place) else { return Ok(()) };
        // A period that does not read is refused by whoever answers.
        let span = crate::query::span_of(asked.period).ok();
        if !self.place(found, span) {
            return Err(self.denied_place(asked.place));
        }
        let map = match asked.membership.map(str::parse::<Membership>) {
            Some(Ok(Membership::Today)) => Some(self.day),
            Some(Ok(Membership::On(date))) => Some(date),
            _ => None,
        };
        let last = span.map_or(self.day, Span::last_day);
        if map.is_some_and(|map| !self.on_map(found, map, last)) {
            return Err(Denied::new(
                format!("该日的归属含有不在您范围（{}）内的机构", self.who.scope),
                format!("that day's map holds facilities outside your scope ({})", self.who.scope),
            ));
        }
        if let Found::Unit(unit) = found
            && has_dim(asked.by, "network")
        {
            let kind = asked.network.and_then(|code| self.catalogue.network_kind(code));
            if !self.networks_of(unit, kind, span, map) {
                return Err(Denied::new(
                    format!("这里有成员在您范围（{}）以外的网络", self.who.scope),
                    format!(
                        "there are networks with members outside your scope ({})",
                        self.who.scope
                    ),
                ));
            }
        }
        Ok(())
    }

    fn denied_place(&self, what: &str) -> Denied {
        if self.present.is_none() {
            return self.denied(what);
        }
        let scope = &self.who.scope;
        Denied::new(
            format!(
                "“{what}”在所问时刻不在您的范围（{scope}）内，或当时含有今天不在您范围内的机构"
            ),
            format!(
                "{what:?} was outside your scope ({scope}) at that moment, or held facilities that are not in it today"
            ),
        )
    }

    fn named(&self, text: &str, period: &str) -> Result<(), Denied> {
        self.asked(Asked { place: text, period, ..Asked::default() })
    }

    fn all_named(&self, texts: &[String]) -> Result<(), Denied> {
        texts.iter().try_for_each(|text| self.named(text, ""))
    }

    fn agent_named(&self, text: &str) -> Result<(), Denied> {
        let inside = text.parse().is_ok_and(|id| self.agent(&id));
        if inside { Ok(()) } else { Err(self.denied(text)) }
    }

    fn request(&self, request: &Request) -> Result<(), Denied> {
        if let Some(asked) = asked_of(request) {
            return self.asked(asked);
        }
        match request {
            Request::Enrol(one) => {
                if let Some(agent) = &one.replaces {
                    self.agent_named(agent)?;
                }
                self.all_named(&one.units)?;
                self.all_named(&one.below)
            }
            Request::EnrolEach(each) => self.all_named(&each.units),
            Request::EnrolStick(stick) => self.all_named(&stick.below),
            Request::Expand { below, .. } => self.all_named(below),
            Request::Assign { agent, scope, .. } => {
                self.agent_named(agent)?;
                self.all_named(&scope.units)?;
                self.all_named(&scope.below)
            }
            Request::Revoke { agent, .. } => self.agent_named(agent),
            Request::DecideClaim(call) => self.claim(&call.agent),
            Request::Extend(call) => self.named(&call.unit, &call.period),
            Request::Correct(call) | Request::Withdraw(call) => {
                self.named(&call.facility, &call.period)
            }
            Request::Return(call) | Request::Approve(call) => {
                self.named(&call.facility, &call.period)
            }
            Request::Signoff(call) | Request::Lock(call) | Request::Unlock(call) => {
                self.named(&call.unit, &call.period)
            }
            Request::ImportCounts(call) => self.counts(&call.header, &call.rows),
            Request::BundleImport(call) => self.bundle(call),
            // Whatever names its places in a way not known here is not let through.
            _ => Err(everything_denied(self.who)),
        }
    }

    fn claim(&self, agent: &str) -> Result<(), Denied> {
        let inside = |id: &AgentId| {
            let claim = self.state.claims.get(id)?;
            let context = self.state.contexts.get(&claim.context)?;
            let holder = self.state.holder(claim.context);
            Some(self.all(&context.facilities) && holder.is_none_or(|holder| self.agent(&holder)))
        };
        let good = agent.parse().ok().and_then(|id| inside(&id));
        if good == Some(true) { Ok(()) } else { Err(self.denied(agent)) }
    }

    /// A bundle is of whom its agent reports for, and of whom the codes in it speak of; of an agent that is
    /// not known here, of whom the grants in it speak of too. Nothing in it is believed for that: who signed
    /// it is looked at when it is taken in.
    fn bundle(&self, call: &BundleCall) -> Result<(), Denied> {
        let Ok((agent, _)) = call.heading() else { return Err(self.denied(&call.file)) };
        let known = self.state.agents.contains_key(&agent);
        // A known agent's old grants may name facilities it has left.
        let introduced: Vec<bool> =
            call.messages.iter().filter_map(|message| self.introduced(&message.0, known)).collect();
        let first = if known { self.agent(&agent) } else { !introduced.is_empty() };
        let inside = first && introduced.into_iter().all(|inside| inside);
        if inside { Ok(()) } else { Err(self.denied(&agent.to_string())) }
    }

    /// Whether all that a message would make its agent report for is inside; none if it makes it nothing, as
    /// the grants of a known agent.
    fn introduced(&self, message: &[u8], known: bool) -> Option<bool> {
        let envelope = Envelope::read(message).ok()?;
        match envelope.kind {
            Kind::Enrol => {
                let request = EnrolRequest::open(&envelope).ok()?;
                let contexts = &self.state.codes.get(&request.code)?.contexts;
                let offered = |number| self.state.contexts.get(number);
                let mut contexts = contexts.iter().filter_map(offered);
                Some(contexts.all(|context| self.all(&context.facilities)))
            }
            Kind::Introduce if !known => {
                let introduction: Introduction = decode(envelope.unverified_body()).ok()?;
                let grants = introduction.grants.iter().map(|signed| signed.unverified());
                let of = |grant: Grant| -> Vec<UnitCode> {
                    grant.offer.facilities.into_iter().map(|scope| scope.code).collect()
                };
                let some = !introduction.grants.is_empty();
                let mut inside = grants.map(|grant| grant.is_ok_and(|grant| self.all(&of(grant))));
                Some(some && inside.all(|inside| inside))
            }
            _ => None,
        }
    }

    fn counts(&self, header: &[String], rows: &[(u32, Vec<String>)]) -> Result<(), Denied> {
        let column = |name: &str| header.iter().position(|one| one == name);
        // A file without these columns is refused whole.
        let (Some(facility), period) = (column("facility"), column("period")) else {
            return Ok(());
        };
        for (_, cells) in rows {
            let code = cells.get(facility).map(|cell| cell.trim()).unwrap_or_default();
            let period = period.and_then(|at| cells.get(at)).map(|cell| cell.trim());
            let day = period.and_then(|p| p.parse::<Period>().ok()).map(Period::last_day);
            if !code.is_empty() && !self.facility_code(code, day) {
                return Err(self.denied(code));
            }
        }
        Ok(())
    }
}

/// Refuses what is about everything to who has a part.
///
/// # Errors
/// [`Denied`] for them.
pub(crate) fn whole(who: &Who) -> Result<(), Denied> {
    if who.sees_everything() { Ok(()) } else { Err(everything_denied(who)) }
}
