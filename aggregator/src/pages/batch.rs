//! A row of the ledger: when it was received, who signed it, and what it brought.

use banyan_shared::ids::Millis;
use banyan_shared::period::Date;
use maud::{Markup, html};

use super::tables::moment;
use super::{Page, Problem, View, fitted, layout, selectors};
use crate::access::Inside;
use crate::query::grouped;
use crate::service::{EntryWhat, LedgerRow, RowContent, RowEntry, Standing};

pub(super) fn page(view: &View<'_>, text: &str) -> Result<Page, Problem> {
    let absent = || Problem {
        status: axum::http::StatusCode::NOT_FOUND,
        text: match view.lang {
            banyan_shared::catalogue::Lang::Zh => format!("账本中没有第“{text}”位"),
            banyan_shared::catalogue::Lang::En => format!("the ledger has no position {text:?}"),
        },
        proposed: Vec::new(),
    };
    let position = text.parse::<u64>().map_err(|_| absent())?;
    let row = view.service.ledger_row(position).map_err(Problem::request)?.ok_or_else(absent)?;
    if !allowed(view, &row) {
        return Err(view.outside(&format!("ledger {position}")));
    }
    view.note_read(&format!("ledger {position}"))?;
    fitted(view, |rows| Ok(render(view, &row, rows)))
}

/// Whether all of a row lies in the visitor's scope.
fn allowed(view: &View<'_>, row: &LedgerRow) -> bool {
    if view.who.sees_everything() {
        return true;
    }
    let RowContent::Batch { agent, home, entries } = &row.content else { return false };
    let state = view.service.state().read();
    let inside = Inside::new(&state, view.service.now(), view.who, None);
    let agent = agent.to_string();
    let of_home = home.as_ref().is_some_and(|home| inside.entry(home.as_str(), "", &agent));
    entries.iter().all(|entry| match &entry.what {
        EntryWhat::Report { facility, period, .. } => {
            inside.entry(facility.as_str(), &period.to_string(), &agent)
        }
        EntryWhat::Void | EntryWhat::Begins | EntryWhat::Unknown => of_home,
    }) && (of_home || !entries.is_empty())
}

fn at(view: &View<'_>, at: Millis) -> String {
    moment(&selectors::moment_text(&view.catalogue, at))
}

fn render(view: &View<'_>, row: &LedgerRow, rows: usize) -> Markup {
    let position = row.position.to_string();
    let here = |position: u64| view.url(&["batch", &position.to_string()], &[]);
    let newest = view.service.state().read().position;
    let content = html! {
        h1 {
            @match row.content {
                RowContent::Batch { .. } => (view.tr("账本中的一批", "A batch of the ledger")),
                RowContent::Act { .. } => (view.tr("账本中的一项决定", "A decision in the ledger")),
            }
            " " small { (view.tr("第 ", "position ")) (position) (view.tr(" 位", "")) }
        }
        div.periods {
            @if row.position > 1 { a rel="prev" href=(here(row.position - 1)) { "← " (row.position - 1) } }
            b { (position) }
            @if row.position < newest { a rel="next" href=(here(row.position + 1)) { (row.position + 1) " →" } }
        }
        table.facts {
            tr { th.label scope="row" { (view.tr("收到", "Received")) } td { (at(view, row.received_at)) } }
            @match &row.content {
                RowContent::Batch { agent, home, entries } => {
                    tr { th.label scope="row" { (view.tr("终端", "Agent")) } td { span.code { (agent) }
                        @if let Some(home) = home { " · " a href=(view.place_url(home.as_str(), None)) { (view.place_name(home.as_str())) } }
                    } }
                    tr { th.label scope="row" { (view.tr("内容", "Entries")) } td { (grouped(entries.len() as u64)) } }
                }
                RowContent::Act { by, at: when } => {
                    tr { th.label scope="row" { (view.tr("决定人", "By")) } td { (by) } }
                    tr { th.label scope="row" { (view.tr("决定时刻", "Decided")) } td { (at(view, *when)) } }
                }
            }
            tr { th.label scope="row" { (view.tr("签名", "Signature")) } td {
                @match &row.signature_wrong {
                    None => span.good { "√ " (view.tr("刚刚重新核验，有效", "checked just now: it holds")) },
                    Some(why) => span.bad { "× " (view.tr("无效：", "it does not hold: ")) (why) },
                }
            } }
            tr { th.label scope="row" { (view.tr("字节数", "Bytes")) } td { (grouped(row.bytes as u64)) } }
        }
        @if let RowContent::Batch { entries, .. } = &row.content {
            @let window = layout::window(view, entries.len(), rows);
            h2 { (view.tr("这一批中的报表", "Reports in this batch")) " " small { (entries.len()) } }
            div.wide { table.list {
                thead { tr {
                    th scope="col" { (view.tr("机构", "Facility")) } th scope="col" { (view.tr("报表", "Form")) }
                    th scope="col" { (view.tr("统计期", "Period")) } th scope="col" { (view.tr("状态", "Standing")) }
                    th scope="col" { (view.tr("版本", "Version")) }
                } }
                tbody { @for entry in &entries[window.clone()] { (line(view, entry)) } }
            } }
            (layout::pager(view, window, entries.len(), |from| view.url(&["batch", &position], &[("from", Some(&from.to_string()))])))
        }
    };
    let title = format!("{} {position}", view.tr("账本", "Ledger"));
    layout::frame(view, &title, &layout::other_lang(view, &["batch", &position], &[]), content)
}

fn line(view: &View<'_>, entry: &RowEntry) -> Markup {
    let name = |code: &str, day: Date| {
        let unit = view.organisation.unit(code);
        unit.map_or(code.to_owned(), |u| view.organisation.name_on(u, day, view.lang).to_owned())
    };
    html! {
        tr {
            @match &entry.what {
                EntryWhat::Report { facility, form, period, .. } => {
                    @let text = period.to_string();
                    td { a href=(view.place_url(facility.as_str(), Some(&text))) title=(facility) { (name(facility.as_str(), period.last_day())) } }
                    td title=(form) { (view.form_name(form)) }
                    td.nowrap { a href=(view.url(&["report", facility.as_str(), form, &text], &[])) { (text) } }
                }
                EntryWhat::Void => td.dim colspan="3" { (view.tr("作废（代替被拒收的一份）", "void: in place of a refused entry")) },
                EntryWhat::Begins => td.dim colspan="3" { (view.tr("终端重新开始编号", "the agent begins a new life")) },
                EntryWhat::Unknown => td.dim colspan="3" { (view.tr("机构或报表在此未知", "of a facility or form not known here")) },
            }
            td {
                @if let Some(refused) = entry.refused {
                    span.bad { (view.tr("拒收：", "refused: ")) (refused.text(view.lang)) }
                } @else if let EntryWhat::Report { standing, withdrawn, .. } = &entry.what {
                    @match standing {
                        Standing::Counted => span.good { (view.tr("计入", "counted")) },
                        Standing::NotCounted => span.dim { (view.tr("已有其他版本计入", "another version is counted")) },
                        Standing::Parked => span.part { (view.tr("暂存待判", "parked")) },
                    }
                    @if *withdrawn { " " span.bad { (view.tr("撤回", "withdrawn")) } }
                }
            }
            td.code { (entry.version) }
        }
    }
}
