//! The home page: a search box, and ways to cities, counties and networks.

use banyan_shared::catalogue::Class;
use banyan_shared::organisation::{Found, UnitIx};
use maud::{Markup, html};

use super::{Page, Problem, ROWS_MAX, View, fitted, layout, selectors};
use crate::access::Scope;

pub(super) fn page(view: &View<'_>) -> Result<Page, Problem> {
    let asked = view.params.q.as_deref().map(str::trim).filter(|text| !text.is_empty());
    if let Some(text) = asked {
        let found = view.find(text, view.today)?;
        let period = view.params.period.as_deref();
        return Ok(Page::Elsewhere(view.place_url(&view.code(found), period)));
    }
    match &view.who.scope {
        Scope::Everything => fitted(view, |rows| Ok(home(view, rows))),
        Scope::Unit(code) => Ok(Page::Elsewhere(view.place_url(code.as_str(), None))),
        Scope::Network(code) => Ok(Page::Elsewhere(view.place_url(code.as_str(), None))),
    }
}

fn home(view: &View<'_>, rows: usize) -> Markup {
    let org = &view.organisation;
    let places = |list: Vec<UnitIx>| -> Vec<UnitIx> {
        list.into_iter().filter(|u| org.class(*u) == Class::Administrative).collect()
    };
    let roots = places(org.roots_on(view.today));
    let name = |u: UnitIx| org.name_on(u, view.today, view.lang).to_owned();
    let link = |found: Found, text: &str| {
        html! { a href=(view.place_url(&view.code(found), None)) { (text) } }
    };
    let kinds: Vec<_> = view
        .catalogue
        .network_kinds
        .iter()
        .zip(0..)
        .map(|(kind, at)| {
            (kind, org.networks_of_kind_on(banyan_shared::catalogue::NetworkKindIx(at), view.today))
        })
        .filter(|(_, networks)| !networks.is_empty())
        .collect();
    let first = |u: UnitIx| places(org.children_on(u, view.today)).into_iter().next();
    let example = roots.first().and_then(|root| first(first(*root)?));
    let content = html! {
        h1 { (view.name) }
        (selectors::notice(view, &view.usual_url(&[], &[])))
        form.search action="/" method="get" {
            (layout::kept(view))
            p {
                input type="text" name="q" maxlength="100" title=(view.tr("名称或代码", "Name or code")) aria-label=(view.tr("名称或代码", "Name or code"));
                " "
                button type="submit" { (view.tr("按名称或代码查找", "Find by name or code")) }
                @if let Some(place) = example {
                    span.dim { " " (view.tr("例如：", "for example: ")) (name(place)) (view.tr("，或 ", ", or ")) (org.code(place)) }
                }
            }
        }
        @for root in &roots {
            h2 { (link(Found::Unit(*root), &name(*root))) }
            table.list {
                @for place in places(org.children_on(*root, view.today)).into_iter().take(rows) {
                    tr {
                        td.nowrap { b { (link(Found::Unit(place), &name(place))) } " " span.code { (org.code(place)) } }
                        td.places {
                            @for below in places(org.children_on(place, view.today)).into_iter().take(rows) {
                                (link(Found::Unit(below), &name(below))) " "
                            }
                        }
                    }
                }
            }
        }
        @for (kind, networks) in &kinds {
            h2 { (kind.name.get(view.lang)) " " small { (networks.len()) } }
            div.places {
                @for network in networks.iter().take(rows.min(ROWS_MAX)) {
                    (link(Found::Network(*network), &org.network_info(*network).name)) " "
                }
                @if networks.len() > rows {
                    span.dim { (view.tr("其余请查找", "find the others by name")) }
                }
            }
        }
    };
    layout::frame(view, &view.name, &layout::other_lang(view, &[], &[]), content)
}
