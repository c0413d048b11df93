//! Loading `[[rule]]` entries.

use super::error::Problem;
use super::expr::{Counted, Expr, Fact, Over};
use super::load::{ENTRIES_MAX, RULE_PARTS_MAX, once, unknown};
use super::read::Fields;
use super::resolve::Names;
use super::rule::{Rule, RulePart, RuleScope, Severity};
use super::{Catalogue, FormIx, NetworkKindIx, Term};
use crate::ids::RuleCode;

/// What a part of a rule takes from its rule where it says nothing itself.
struct Defaults {
    forms: Option<Vec<FormIx>>,
    severity: Option<Severity>,
    scope: Option<RuleScope>,
    network_kind: Option<NetworkKindIx>,
}

pub(super) fn rules(top: &Fields<'_>, catalogue: &Catalogue) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for fields in top.tables("rule", ENTRIES_MAX) {
        let code: Option<RuleCode> = fields.code("code");
        let message = fields.name("message");
        let own = defaults(&fields, catalogue);
        let entries = fields.tables("part", RULE_PARTS_MAX);
        let alone = fields.has("when");
        match (alone, entries.is_empty()) {
            (true, false) => fields.report(Problem::WhenAndParts {}),
            (false, true) => fields.report(Problem::NoParts {}),
            _ => {}
        }
        let mut parts = Vec::new();
        if let Some(code) = &code {
            if alone {
                parts.extend(part(&fields, catalogue, code.clone(), &own, &own));
            }
            for (entry, letter) in entries.iter().zip('a'..='z') {
                let theirs = defaults(entry, catalogue);
                if let Ok(code) = format!("{code}{letter}").parse() {
                    parts.extend(part(entry, catalogue, code, &own, &theirs));
                }
                entry.finish();
            }
        }
        fields.finish();
        if let Some(code) = code
            && once(&fields, rules.iter().any(|rule| rule.code == code), code.as_str())
        {
            rules.push(Rule { code, message, parts });
        }
    }
    rules
}

fn defaults(fields: &Fields<'_>, catalogue: &Catalogue) -> Defaults {
    let scopes = [RuleScope::Report, RuleScope::History, RuleScope::CrossSite];
    let forms = fields.has("forms").then(|| {
        let mut forms = Vec::new();
        for text in fields.texts("forms") {
            match catalogue.form(text) {
                Some(form) => forms.push(form),
                None => fields.report_at("forms", None, unknown("[[form]]", text)),
            }
        }
        if forms.is_empty() {
            fields.report_at("forms", None, Problem::Empty { key: "forms".to_owned() });
        }
        forms
    });
    let network_kind = fields.text("network_kind").and_then(|text| {
        let found = catalogue.network_kind(text);
        if found.is_none() {
            fields.report_at("network_kind", None, unknown("[[network_kind]]", text));
        }
        found
    });
    Defaults {
        forms,
        severity: fields
            .choice("severity", &[("error", Severity::Error), ("warning", Severity::Warning)]),
        scope: fields.choice("scope", &scopes.map(|scope| (scope.name(), scope))),
        network_kind,
    }
}

fn part(
    fields: &Fields<'_>,
    catalogue: &Catalogue,
    code: RuleCode,
    rule: &Defaults,
    own: &Defaults,
) -> Option<RulePart> {
    let missing = |key: &str| fields.report(Problem::MissingKey { key: key.to_owned() });
    let scope = own.scope.or(rule.scope).unwrap_or(RuleScope::Report);
    let severity = own.severity.or(rule.severity);
    if severity.is_none() {
        missing("severity");
    }
    let forms = own.forms.clone().or_else(|| rule.forms.clone());
    if forms.is_none() {
        missing("forms");
    }
    let forms = forms.unwrap_or_default();
    let network_kind = own.network_kind.or(rule.network_kind);
    if (scope == RuleScope::CrossSite) != network_kind.is_some() {
        fields.report(Problem::NetworkKind {});
    }
    let text = fields.need_text("when")?;
    let resolved = Names { catalogue }.expression(fields, "when", text, true)?;
    if let Some(expr) = &resolved.expr {
        check(fields, catalogue, scope, &forms, expr);
    }
    Some(RulePart {
        code,
        forms,
        severity: severity?,
        scope,
        network_kind,
        expr: resolved.expr,
        waits_for: resolved.waits_for,
        text: text.to_owned(),
    })
}

/// Reports what has no meaning in a rule of this scope.
fn check(
    fields: &Fields<'_>,
    catalogue: &Catalogue,
    scope: RuleScope,
    forms: &[FormIx],
    expr: &Expr<Term>,
) {
    let not_here = |name: &str| {
        let function = name.to_owned();
        fields.report_at("when", None, Problem::FunctionNotHere { function, place: scope.name() });
    };
    let mut counts = false;
    expr.walk(&mut |part| {
        let term = match part {
            Expr::Over(over, term) => {
                let fits = match scope {
                    RuleScope::Report => *over == Over::Previous,
                    RuleScope::History => matches!(over, Over::Previous | Over::YearToDate),
                    RuleScope::CrossSite => false,
                };
                if !fits {
                    not_here(over.name());
                }
                term
            }
            Expr::Fact(fact) => {
                let past =
                    matches!(fact, Fact::Value | Fact::Median12 | Fact::Mad12 | Fact::LastYear);
                counts |= past;
                if past && scope != RuleScope::History {
                    not_here(fact.name());
                }
                return;
            }
            Expr::Term(term) => term,
            _ => return,
        };
        counts = true;
        if scope == RuleScope::CrossSite {
            return;
        }
        let Counted::Element(element) = term.what else {
            not_here(super::expr::FACILITIES);
            return;
        };
        let name = catalogue.elements[element.at()].code.to_string();
        if !term.filter.is_empty() {
            fields.report_at("when", None, Problem::FilterNotHere { term: name.clone() });
        }
        if scope == RuleScope::Report {
            for form in forms.iter().map(|form| &catalogue.forms[form.at()]) {
                if form.line_of(element).is_none() {
                    let (element, form) = (name.clone(), form.code.to_string());
                    fields.report_at("when", None, Problem::NotOnForm { element, form });
                }
            }
        }
    });
    if !counts {
        fields.report_at("when", None, Problem::NoTerms { key: "when".to_owned() });
    }
}
