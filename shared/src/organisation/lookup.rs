//! Finding a unit or network from what a person types.

use super::{NetworkIx, Organisation, UnitIx};
use crate::catalogue::Lang;
use crate::period::Date;

/// Most candidates listed for a text that names no single thing.
pub const FIND_CANDIDATES_MAX: usize = 20;

/// What other systems or people call units and networks.
pub(super) type Aliases = Vec<Found>;

/// A unit or a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Found {
    /// A unit.
    Unit(UnitIx),
    /// A network.
    Network(NetworkIx),
}

/// Something a text may have meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The thing.
    pub found: Found,
    /// Its code.
    pub code: String,
    /// The names above it and its own, the highest first.
    pub path: Vec<String>,
}

/// What a text names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Exactly one thing.
    One(Found),
    /// No single thing; these share the name or contain the text, at most [`FIND_CANDIDATES_MAX`],
    /// none if nothing does.
    Candidates(Vec<Candidate>),
}

impl Organisation {
    /// What `text` names: a code, a name that only one unit or network ever had, or an alias.
    /// Paths of candidates are those of `date`.
    pub fn find(&self, text: &str, date: Date) -> Lookup {
        let text = text.trim();
        if let Some(u) = self.unit(text) {
            return Lookup::One(Found::Unit(u));
        }
        if let Some(n) = self.network(text) {
            return Lookup::One(Found::Network(n));
        }
        let mut found = if text.is_empty() { Vec::new() } else { self.named(|name| name == text) };
        if found.is_empty() {
            found = self.aliases.get(text).cloned().unwrap_or_default();
        }
        if let [one] = found[..] {
            return Lookup::One(one);
        }
        if found.is_empty() && !text.is_empty() {
            found = self.named(|name| name.contains(text));
        }
        found.truncate(FIND_CANDIDATES_MAX);
        Lookup::Candidates(found.into_iter().map(|f| self.candidate(f, date)).collect())
    }

    fn named(&self, matches: impl Fn(&str) -> bool) -> Vec<Found> {
        let units = self.units().filter(|u| {
            let spells = self.info(*u).spells.iter();
            spells.flat_map(|s| [&s.name, &s.name_en]).any(|name| matches(name))
        });
        let networks = self.networks().filter(|n| matches(&self.network_info(*n).name));
        units.map(Found::Unit).chain(networks.map(Found::Network)).collect()
    }

    fn candidate(&self, found: Found, date: Date) -> Candidate {
        let names = |u: UnitIx| -> Vec<String> {
            let path = self.path(u, date);
            path.into_iter().map(|at| self.name_on(at, date, Lang::Zh).to_owned()).collect()
        };
        match found {
            Found::Unit(u) => Candidate { found, code: self.code(u).to_string(), path: names(u) },
            Found::Network(n) => {
                let network = self.network_info(n);
                let mut path = network.area.first().map(|u| names(*u)).unwrap_or_default();
                path.push(network.name.to_string());
                Candidate { found, code: network.code.to_string(), path }
            }
        }
    }
}
