//! What all pages have in common: the frame around them, and the page that says why there is no other.

use banyan_shared::catalogue::Lang;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{Problem, View};
use crate::access::{CSRF_FIELD, Via};

pub(crate) const STYLE: &str = include_str!("style.css");

/// The frame. `other_lang` is this page's address in the other language.
pub(super) fn frame(view: &View<'_>, title: &str, other_lang: &str, content: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang=(view.tr("zh-CN", "en")) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) @if title != "榕树 Banyan" { " · 榕树 Banyan" } }
                style { (PreEscaped(STYLE)) }
            }
            body {
                div.top {
                    a.brand href=(view.url(&[], &[])) { "榕树 Banyan" }
                    @if view.name != "榕树 Banyan" { span { (view.name) } }
                    div.right {
                        form action="/" method="get" {
                            (kept(view))
                            input type="text" name="q" maxlength="100" title=(view.tr("名称或代码", "Name or code")) aria-label=(view.tr("名称或代码", "Name or code"));
                            " "
                            button type="submit" { (view.tr("查找", "Find")) }
                        }
                        a href=(other_lang) { (view.tr("English", "中文")) }
                        (visitor(view))
                    }
                }
                div.main {
                    (content)
                    div.foot {
                        (view.tr("目录版本 ", "Catalogue ")) (view.catalogue.version)
                        " · "
                        (view.tr("没有数值处写明原因；缺报不等于零。", "Where there is no number the reason is given; missing is not zero."))
                        (open_to_this_machine(view))
                    }
                }
            }
        }
    }
}

/// Who is logged in, and the way out.
fn visitor(view: &View<'_>) -> Markup {
    let Some(csrf) = &view.who.csrf else { return html! {} };
    html! {
        " " a href=(view.usual_url(&["password"], &[])) title=(view.tr("修改密码", "Change password")) { (view.who.name) }
        " "
        form action="/logout" method="post" {
            input type="hidden" name=(CSRF_FIELD) value=(csrf);
            button type="submit" { (view.tr("退出", "Log out")) }
        }
    }
}

/// Told on every page while nobody has to log in.
fn open_to_this_machine(view: &View<'_>) -> Markup {
    html! {
        @if view.who.via == Via::Open {
            div { (view.tr(
                "尚未设立用户：凡能使用本机的人都能查看全部数据。设立用户：banyan-aggregator user add",
                "No user has been made: whoever can use this machine sees everything. To change that: banyan-aggregator user add",
            )) }
        }
    }
}

/// Map, moment and language, for a form that leads to another page.
pub(super) fn kept(view: &View<'_>) -> Markup {
    html! {
        @for (name, value) in view.kept(view.lang) {
            @if let Some(value) = value { input type="hidden" name=(name) value=(value); }
        }
    }
}

/// The address of `path` with these parameters in the other language.
pub(super) fn other_lang(
    view: &View<'_>,
    path: &[&str],
    params: &[(&str, Option<&str>)],
) -> String {
    let lang = match view.lang {
        Lang::Zh => Lang::En,
        Lang::En => Lang::Zh,
    };
    view.url_in(lang, path, params)
}

/// The way down from the top of the tree to the place itself.
pub(super) fn trail(view: &View<'_>, places: &[(String, String)], period: &str) -> Markup {
    html! {
        div.path {
            @for (at, (code, name)) in places.iter().enumerate() {
                @if at > 0 { " › " }
                a href=(view.place_url(code, Some(period))) { (name) }
            }
        }
    }
}

/// Why there is no such page, and where to go instead.
pub(super) fn problem(view: &View<'_>, problem: &Problem) -> Markup {
    let title = if problem.status == axum::http::StatusCode::NOT_FOUND {
        view.tr("没有找到", "Not found")
    } else {
        view.tr("无法显示", "Cannot be shown")
    };
    let content = html! {
        h1 { (title) }
        div.note role="alert" { @for line in problem.text.lines() { div { (line) } } }
        @if !problem.proposed.is_empty() {
            table.list {
                thead { tr { th scope="col" { (view.tr("代码", "Code")) } th scope="col" { (view.tr("所在", "Where")) } } }
                tbody {
                    @for place in &problem.proposed {
                        tr {
                            td.nowrap { a href=(view.place_url(&place.code, view.params.period.as_deref())) { (place.code) } }
                            td { (place.path) }
                        }
                    }
                }
            }
        }
        p { a href=(view.url(&[], &[])) { (view.tr("返回首页", "Back to the home page")) } }
    };
    frame(view, title, &other_lang(view, &[], &[]), content)
}

/// Links to the rows before and after those shown.
pub(super) fn pager(
    view: &View<'_>,
    shown: std::ops::Range<usize>,
    all: usize,
    link: impl Fn(usize) -> String,
) -> Markup {
    html! {
        @if shown.start > 0 || shown.end < all {
            p.pager {
                @if shown.start > 0 {
                    a href=(link(shown.start.saturating_sub(super::ROWS_MAX))) { "← " (view.tr("上一页", "Earlier rows")) }
                    " "
                }
                (shown.start + 1) "–" (shown.end) " / " (all) " "
                @if shown.end < all {
                    a href=(link(shown.end)) { (view.tr("下一页", "Further rows")) " →" }
                }
            }
        }
    }
}

/// The rows shown of `all`, from the one asked for.
pub(super) fn window(view: &View<'_>, all: usize, rows: usize) -> std::ops::Range<usize> {
    let from = view.from().min(all.saturating_sub(1));
    from..all.min(from + rows)
}
