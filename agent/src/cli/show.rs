//! Answers on the screen: tables for people, JSON and CSV for programs.

use banyan_shared::catalogue::Lang;
use comfy_table::{Table, presets};
use serde::Serialize;

use super::args::Format;
use super::{Exit, Ui};
use crate::command::{QueueRow, QueueState, Refused, Reply, Saved, Shown, Status};

/// Prints a table, or rows of CSV.
pub(crate) fn rows(ui: &Ui, header: &[&str], rows: &[Vec<String>]) {
    if ui.format == Format::Csv {
        let mut writer = csv::Writer::from_writer(std::io::stdout());
        // A closed pipe is nobody's fault.
        let _ = writer.write_record(header);
        for row in rows {
            let _ = writer.write_record(row);
        }
        let _ = writer.flush();
        return;
    }
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    print(&table.to_string());
}

/// Prints JSON.
pub(crate) fn json<T: Serialize>(value: &T) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(&text),
        Err(error) => super::err_line(&error.to_string()),
    }
}

/// Prints a line; a closed pipe is nobody's fault.
pub(crate) fn print(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// An answer that reports a failure.
pub(crate) fn unexpected(ui: &Ui, reply: Reply) -> Exit {
    match reply {
        Reply::Failed(note) => ui.tell(&note),
        _ => ui.tell(&crate::core::other_version()),
    }
    Exit::Failed
}

/// What was saved.
pub(crate) fn saved(ui: &Ui, saved: &[Saved], refused: &[Refused]) -> Exit {
    for one in saved {
        for warning in &one.warnings {
            ui.tell(warning);
        }
    }
    for one in refused {
        for fault in &one.faults {
            ui.tell(fault);
        }
    }
    if ui.format == Format::Json {
        json(&saved);
    } else {
        let mut lines = Vec::new();
        for one in saved {
            let what = match (one.saved, one.withdrawn, one.replaced, ui.lang) {
                (false, _, _, Lang::Zh) => "无变化",
                (false, _, _, Lang::En) => "unchanged",
                (true, true, _, Lang::Zh) => "已撤回",
                (true, true, _, Lang::En) => "withdrawn",
                (true, false, true, Lang::Zh) => "已更正",
                (true, false, true, Lang::En) => "replaced",
                (true, false, false, Lang::Zh) => "已保存",
                (true, false, false, Lang::En) => "saved",
            };
            let shown = |text: &str| match (text, ui.lang) {
                ("", Lang::Zh) => "缺报".to_owned(),
                ("", Lang::En) => "missing".to_owned(),
                (text, _) => text.to_owned(),
            };
            let changes: Vec<String> = one
                .changes
                .iter()
                .map(|change| {
                    let (element, after) = (&change.element, shown(&change.after));
                    if one.replaced {
                        format!("{element} {}→{after}", shown(&change.before))
                    } else {
                        format!("{element}={after}")
                    }
                })
                .collect();
            lines.push(vec![
                what.to_owned(),
                one.facility.clone(),
                one.form.clone(),
                one.period.clone(),
                changes.join(" "),
            ]);
        }
        if !lines.is_empty() {
            let header = match ui.lang {
                Lang::Zh => ["结果", "机构", "报表", "统计期", "变化"],
                Lang::En => ["result", "facility", "form", "period", "changes"],
            };
            rows(ui, &header, &lines);
        }
    }
    if refused.is_empty() {
        Exit::Done
    } else {
        ui.say("未保存。", "Nothing was saved.");
        let mut faults = refused.iter().flat_map(|one| &one.faults);
        // The arguments name what is not there, as with a wrong option.
        if faults.any(|fault| fault.code == "not_enrolled") { Exit::Usage } else { Exit::Failed }
    }
}

/// How the line stands, in words; the code itself where a program reads it.
fn link_text(ui: &Ui, code: &str) -> String {
    let (zh, en) = match code {
        "connected" => ("已连接", "connected"),
        "connecting" => ("正在连接", "connecting"),
        "offline" => ("未连接，稍后自动重试", "no connection; tried again by itself"),
        "never" => ("尚未尝试", "not tried yet"),
        "not_running" => {
            ("服务未运行（banyan-agent run）", "no service is running (banyan-agent run)")
        }
        _ => return code.to_owned(),
    };
    let words = if ui.lang == Lang::Zh { zh } else { en };
    if ui.format == Format::Csv { code } else { words }.to_owned()
}

/// How the agent is.
pub(crate) fn status(ui: &Ui, status: &Status) -> Exit {
    if ui.format == Format::Json {
        json(status);
        return Exit::Done;
    }
    let none = || "-".to_owned();
    let due = status
        .next_due
        .as_ref()
        .map_or_else(none, |d| format!("{} {} {} ≤ {}", d.unit, d.form, d.period, d.due));
    let mut lines: Vec<(&str, [&str; 2], String)> = vec![
        ("agent", ["终端", "Agent"], status.agent.clone()),
        ("home", ["本机构", "Facility"], status.home.clone()),
        ("facilities", ["可报机构数", "Facilities"], status.facilities.len().to_string()),
        ("waiting", ["待上报", "Waiting to be sent"], status.waiting.to_string()),
        ("received", ["已收到回执", "Received by the centre"], status.received.to_string()),
        (
            "refused",
            ["被拒（请用queue ls查看）", "Refused (see queue ls)"],
            status.refused.to_string(),
        ),
        ("parked", ["中心暂存", "Set aside by the centre"], status.parked.to_string()),
        ("returned", ["退回更正", "Returned to be corrected"], status.returned.to_string()),
        (
            "oldest_waiting",
            ["最早待上报", "Waiting since"],
            status.oldest_waiting.clone().unwrap_or_else(none),
        ),
        ("next_due", ["下一份应报", "Due next"], due),
        (
            "last_receipt",
            ["最近回执", "Newest receipt"],
            status.last_receipt.clone().unwrap_or_else(none),
        ),
        (
            "clock_offset_ms",
            ["与中心时钟相差（毫秒）", "Centre's clock ahead by ms"],
            status.clock_offset_ms.map_or_else(none, |ms| ms.to_string()),
        ),
        ("link", ["连接", "Line"], link_text(ui, &status.link)),
    ];
    if let Some(refusal) = status.refusal {
        let text = format!("{} [{}]", refusal.text(ui.lang), refusal.code());
        lines.push(("refusal", ["中心未接受", "Not accepted"], text));
    }
    if ui.format == Format::Csv {
        let header: Vec<&str> = lines.iter().map(|(name, _, _)| *name).collect();
        rows(ui, &header, &[lines.iter().map(|(_, _, value)| value.clone()).collect()]);
    } else {
        let shown: Vec<Vec<String>> = lines
            .into_iter()
            .map(|(_, [zh, en], value)| {
                vec![if ui.lang == Lang::Zh { zh } else { en }.to_owned(), value]
            })
            .collect();
        let header = if ui.lang == Lang::Zh { ["项目", "状况"] } else { ["what", "value"] };
        rows(ui, &header, &shown);
    }
    Exit::Done
}

fn state(state: QueueState, lang: Lang) -> (&'static str, &'static str, &'static str) {
    match (state, lang) {
        (QueueState::Waiting, Lang::Zh) => ("待上报", "", ""),
        (QueueState::Waiting, Lang::En) => ("waiting", "", ""),
        (QueueState::Received, Lang::Zh) => ("已收到", "", ""),
        (QueueState::Received, Lang::En) => ("received", "", ""),
        (QueueState::Refused(why), Lang::Zh) => ("被拒", why.code(), why.text(lang)),
        (QueueState::Refused(why), Lang::En) => ("refused", why.code(), why.text(lang)),
        (QueueState::Parked(why), Lang::Zh) => ("暂存", why.code(), why.text(lang)),
        (QueueState::Parked(why), Lang::En) => ("parked", why.code(), why.text(lang)),
    }
}

/// `queue ls`.
pub(crate) fn queue(ui: &Ui, entries: &[QueueRow]) -> Exit {
    if ui.format == Format::Json {
        json(&entries);
        return Exit::Done;
    }
    let lines: Vec<Vec<String>> = entries
        .iter()
        .map(|row| {
            // Programs read codes, people words.
            let words = if ui.format == Format::Csv { Lang::En } else { ui.lang };
            let (shown_state, code, text) = state(row.state, words);
            let why = if ui.format == Format::Csv || code.is_empty() {
                code.to_owned()
            } else {
                format!("{text} [{code}]")
            };
            vec![
                row.entry.clone(),
                row.facility.clone(),
                row.form.clone(),
                row.period.clone(),
                shown_state.to_owned(),
                why,
            ]
        })
        .collect();
    let header = match ui.lang {
        Lang::Zh if ui.format == Format::Table => {
            ["条目", "机构", "报表", "统计期", "状态", "原因"]
        }
        _ => ["entry", "facility", "form", "period", "state", "reason"],
    };
    rows(ui, &header, &lines);
    if entries.iter().any(|row| matches!(row.state, QueueState::Refused(_))) {
        ui.say(
            "被拒的报表：用 queue show 条目 查看内容和重新录入的命令。",
            "Refused reports: queue show ENTRY gives the contents and the command to enter them again.",
        );
    }
    Exit::Done
}

/// `queue show`.
pub(crate) fn entry(ui: &Ui, shown: &Shown) -> Exit {
    if ui.format == Format::Json {
        json(shown);
        return Exit::Done;
    }
    let values: Vec<Vec<String>> =
        shown.values.iter().map(|(element, value)| vec![element.clone(), value.clone()]).collect();
    if ui.format == Format::Table {
        let row = &shown.row;
        let (state, code, text) = state(row.state, ui.lang);
        print(&format!("{} {} {} {}", row.entry, row.facility, row.form, row.period));
        let by = shown.by.as_deref().unwrap_or("-");
        print(&format!("{state} {text} {code} · {} · {by}", shown.how.text(ui.lang)));
    }
    rows(ui, &["element", "value"], &values);
    if matches!(shown.row.state, QueueState::Refused(_)) {
        let again = &shown.again;
        ui.say(&format!("重新录入：{again}"), &format!("To enter it again: {again}"));
    }
    Exit::Done
}
