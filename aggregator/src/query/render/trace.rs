//! The trace of a number for people.

use banyan_shared::catalogue::{Catalogue, Lang};
use banyan_shared::figures::{MissingWhy, State};
use banyan_shared::report::{How, Reason};

use super::{align, broken_text, decision_text, restated_text, stage_text, status_text, table, tr};
use crate::query::trace::Trace;

/// The trace of a number for people.
pub fn trace_table(trace: &Trace, catalogue: &Catalogue, lang: Lang) -> String {
    let status = status_text(&trace.status, lang);
    let why = trace.missing_why.as_deref().and_then(MissingWhy::from_code);
    let mut out = format!(
        "{} {}  {}  {}\n{}{}",
        trace.facility,
        trace.path.join(" › "),
        trace.form,
        trace.period,
        status,
        why.map(|why| format!(" ({})", why.text(lang))).unwrap_or_default(),
    );
    for (label, text) in [
        (tr(lang, "应报时限", "due"), &trace.due),
        (tr(lang, "迟报界限", "late after"), &trace.late_after),
        (tr(lang, "到达", "arrived"), &trace.arrived),
    ] {
        if let Some(text) = text {
            out.push_str(&format!("  {label} {text}"));
        }
    }
    out.push('\n');
    let mut said = Vec::new();
    said.extend(stage_text(&trace.stage, lang));
    if trace.returned {
        said.push(MissingWhy::Returned.text(lang));
    }
    if trace.restated {
        said.push(restated_text(lang));
    }
    if !said.is_empty() {
        out.push_str(&format!("{}\n", said.join(tr(lang, "；", "; "))));
    }
    if trace.heads > 1 {
        out.push_str(&match lang {
            Lang::Zh => format!("冲突：{} 个版本并存，待有人确认\n", trace.heads),
            Lang::En => {
                format!("Conflict: {} versions stand until one replaces the others\n", trace.heads)
            }
        });
    }
    let mut lines = table(&[
        tr(lang, "数据元", "element"),
        tr(lang, "数值", "value"),
        tr(lang, "状态", "state"),
    ]);
    for ((code, value), (_, state)) in trace.values.0.iter().zip(&trace.states.0) {
        let model = catalogue.element(code).map(|ix| &catalogue.elements[ix.at()]);
        let name = model.map_or(code.as_str(), |model| model.name.get(lang));
        let state = if *state == State::Reported { "" } else { state.text(lang) };
        lines.add_row([format!("{name} {code}"), value.to_string(), state.to_owned()]);
    }
    align(&mut lines, [1]);
    out.push_str(&lines.trim_fmt());
    out.push('\n');
    for broken in &trace.broken {
        out.push_str(&format!("{}\n", broken_text(broken, catalogue, lang)));
    }
    if !trace.history.is_empty() {
        let mut lines = table(&[
            tr(lang, "版本", "version"),
            tr(lang, "录入方式", "how"),
            tr(lang, "录入人", "by"),
            tr(lang, "录入", "entered"),
            tr(lang, "接收", "received"),
            tr(lang, "批次", "batch"),
            tr(lang, "说明", "notes"),
            tr(lang, "数值", "values"),
        ]);
        for v in &trace.history {
            let mut notes = Vec::new();
            if v.counted {
                notes.push(tr(lang, "计入", "counted").to_owned());
            }
            if v.withdrawn {
                notes.push(tr(lang, "撤回", "withdrawn").to_owned());
            }
            if v.pending {
                notes.push(tr(lang, "待批准", "awaits approval").to_owned());
            }
            if let Some(reason) = v.reason.as_deref().and_then(Reason::from_code) {
                notes.push(reason.text(lang).to_owned());
            }
            if !v.replaced_by.is_empty() {
                notes.push(format!(
                    "{} {}",
                    tr(lang, "被替代：", "replaced by"),
                    v.replaced_by.join(", ")
                ));
            }
            let how = How::from_code(&v.how).map_or(v.how.as_str(), |how| how.text(lang));
            let values = v.values.0.iter().map(|(code, value)| format!("{code}={value}"));
            lines.add_row([
                v.version.clone(),
                how.to_owned(),
                v.entered_by.clone().unwrap_or_default(),
                format!("{}{}", v.entered_at, if v.entered_at_doubtful { " ?" } else { "" }),
                v.received_at.clone(),
                v.position.to_string(),
                notes.join(tr(lang, "；", "; ")),
                values.collect::<Vec<_>>().join(" "),
            ]);
        }
        out.push_str(&lines.trim_fmt());
        out.push('\n');
    }
    for decision in &trace.decisions {
        let reason = decision.reason.as_deref().and_then(Reason::from_code);
        let what = decision_text(&decision.decision, lang);
        out.push_str(&format!(
            "{}  {what}  {}{}{}\n",
            decision.at,
            decision.by,
            decision.place.as_ref().map(|place| format!("  {place}")).unwrap_or_default(),
            reason.map(|reason| format!("  {}", reason.text(lang))).unwrap_or_default(),
        ));
    }
    out
}
