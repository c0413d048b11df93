//! From names to catalogue places: filters and expressions, with every unknown name reported.

use super::error::Problem;
use super::expr::{self, Counted, Expr, FACILITIES, NamedFilter, NamedTerm, Term};
use super::load::unknown;
use super::read::Fields;
use super::{Catalogue, Class, ElementIx, Filter, KindIx, NetworkKindIx, RoleIx};
use crate::catalogue::Lang;
use crate::ids::ElementCode;

/// The names a catalogue knows so far.
pub(super) struct Names<'a> {
    pub(super) catalogue: &'a Catalogue,
}

/// A read expression: its tree, unless it waits for reserved elements.
pub(super) struct Resolved {
    pub(super) expr: Option<Expr<Term>>,
    pub(super) waits_for: Vec<ElementCode>,
}

fn column(text: &str, at: usize) -> usize {
    text.get(..at).map_or(1, |before| before.chars().count() + 1)
}

fn indexes<I>(count: usize, ix: fn(u16) -> I) -> Vec<I> {
    (0..count).filter_map(|n| u16::try_from(n).ok()).map(ix).collect()
}

impl Names<'_> {
    /// The filter `text`, or none with its faults reported under `key`.
    pub(super) fn filter_text(&self, fields: &Fields<'_>, key: &str, text: &str) -> Option<Filter> {
        let named = expr::parse_filter(text).map_err(|e| bad(fields, key, text, &e)).ok()?;
        self.filter(&named)
            .map_err(|p| p.into_iter().for_each(|p| fields.report_at(key, None, p)))
            .ok()
    }

    fn filter(&self, named: &NamedFilter) -> Result<Filter, Vec<Problem>> {
        let mut filter = Filter::default();
        let mut problems = Vec::new();
        let mut seen: Vec<&str> = Vec::new();
        for part in &named.parts {
            if part.key != "role" && seen.contains(&part.key.as_str()) {
                problems.push(Problem::RepeatedFilterKey { key: part.key.clone() });
            }
            seen.push(&part.key);
            if part.key == "role" {
                let mut any = Vec::new();
                for (role, of) in &part.choices {
                    match self.role(role, of.as_deref()) {
                        Ok(roles) => any.extend(roles),
                        Err(problem) => problems.push(problem),
                    }
                }
                filter.roles.push(any);
                continue;
            }
            if let Some((choice, _)) =
                part.choices.iter().find(|(choice, of)| of.is_some() || choice == "*")
            {
                problems.push(Problem::RoleShape { value: format!("{}={choice}", part.key) });
            }
            let choices = part.choices.iter().map(|(choice, _)| choice);
            if part.key == "kind" {
                for choice in choices {
                    match self.catalogue.kind(choice) {
                        Some(kind) => filter.kinds.push(kind),
                        None => problems.push(unknown("[[kind]]", choice)),
                    }
                }
            } else if let Some(attribute) = self.catalogue.attribute(&part.key) {
                let values = &self.catalogue.attributes[attribute.at()].values;
                for choice in choices.clone() {
                    if !values.is_empty() && !values.iter().any(|(value, _)| value == choice) {
                        let code = format!("{}={choice}", part.key);
                        problems.push(Problem::Unknown { what: "[[attribute.value]]", code });
                    }
                }
                filter.attributes.push((attribute, choices.cloned().collect()));
            } else {
                problems.push(unknown("[[attribute]]", &part.key));
            }
        }
        if problems.is_empty() { Ok(filter) } else { Err(problems) }
    }

    fn role(&self, role: &str, of: Option<&str>) -> Result<Vec<(RoleIx, NetworkKindIx)>, Problem> {
        let Some(of) = of else {
            return Err(Problem::RoleShape { value: format!("role={role}") });
        };
        let roles = if role == "*" {
            indexes(self.catalogue.roles.len(), RoleIx)
        } else {
            vec![self.catalogue.role(role).ok_or_else(|| unknown("[[role]]", role))?]
        };
        let networks = if of == "*" {
            indexes(self.catalogue.network_kinds.len(), NetworkKindIx)
        } else {
            vec![self.catalogue.network_kind(of).ok_or_else(|| unknown("[[network_kind]]", of))?]
        };
        Ok(roles.iter().flat_map(|&role| networks.iter().map(move |&of| (role, of))).collect())
    }

    /// The expression `text`, or none with its faults reported under `key`. An expression naming reserved
    /// elements is checked as far as it can be and has no tree.
    pub(super) fn expression(
        &self,
        fields: &Fields<'_>,
        key: &'static str,
        text: &str,
        wants_condition: bool,
    ) -> Option<Resolved> {
        let named = expr::parse(text).map_err(|e| bad(fields, key, text, &e)).ok()?;
        if named.is_condition() != wants_condition {
            let key = key.to_owned();
            fields.report(if wants_condition {
                Problem::NeedsCondition { key }
            } else {
                Problem::NeedsNumber { key }
            });
            return None;
        }
        let mut waits_for = Vec::new();
        let mut sound = true;
        let tree = named.map(&mut |term: &NamedTerm| {
            let fault = |problem| fields.report_at(key, Some(column(text, term.at)), problem);
            match self.term(term) {
                Ok(term) => Ok(term),
                Err(problems) => {
                    if let Some(code) = self.reserved(&term.name) {
                        waits_for.push(code);
                    } else {
                        sound = false;
                        problems.into_iter().for_each(fault);
                    }
                    // Any term does: the tree is thrown away; this one keeps the walk going.
                    Ok::<_, ()>(Term { what: Counted::Facilities, filter: Filter::default() })
                }
            }
        });
        waits_for.dedup();
        let expr = tree.ok().filter(|_| waits_for.is_empty());
        sound.then_some(Resolved { expr, waits_for })
    }

    fn reserved(&self, name: &str) -> Option<ElementCode> {
        self.catalogue.reserved.iter().find(|code| code.as_str() == name).cloned()
    }

    fn term(&self, term: &NamedTerm) -> Result<Term, Vec<Problem>> {
        let filter = self.filter(&term.filter)?;
        let kinds = if term.name == FACILITIES {
            let facilities = indexes(self.catalogue.kinds.len(), KindIx).into_iter();
            let class = |kind: &KindIx| self.catalogue.kinds[kind.at()].class;
            facilities.filter(|kind| class(kind) == Class::Facility).collect()
        } else {
            let element = self
                .catalogue
                .element(&term.name)
                .ok_or_else(|| vec![unknown("[[element]]", &term.name)])?;
            self.kinds_asked(element)
        };
        if !filter.kinds.is_empty() && !filter.kinds.iter().any(|kind| kinds.contains(kind)) {
            return Err(vec![Problem::AdmitsNone { filter: term.filter.to_string() }]);
        }
        let what = match self.catalogue.element(&term.name) {
            Some(element) => Counted::Element(element),
            None => Counted::Facilities,
        };
        Ok(Term { what, filter })
    }

    /// The kinds any form asks `element` of.
    pub(super) fn kinds_asked(&self, element: ElementIx) -> Vec<KindIx> {
        let mut kinds = Vec::new();
        for form in &self.catalogue.forms {
            for line in form.lines.iter().filter(|line| line.element == element) {
                let asked = &line.asked_of.kinds;
                kinds.extend(form.kinds.iter().filter(|k| asked.is_empty() || asked.contains(k)));
            }
        }
        kinds
    }
}

fn bad(fields: &Fields<'_>, key: &str, text: &str, error: &expr::ExprError) {
    let problem = Problem::Expression {
        text: text.to_owned(),
        zh: error.reason(Lang::Zh),
        en: error.reason(Lang::En),
    };
    fields.report_at(key, Some(error.column), problem);
}
