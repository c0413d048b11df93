//! Figures in words: numbers, targets, and why there is no number.

use banyan_shared::catalogue::indicator::Level;
use banyan_shared::catalogue::{Catalogue, Direction, Indicator, Lang};
use banyan_shared::figures::State;
use banyan_shared::tables::registry::TargetStatus;

use super::View;
use super::tables::moment;
use crate::query::{ElementFigure, IndicatorFigure, SharedText, WaitingFor, flag_text, grouped};

/// Most reports named that a figure waits for.
const WAITING_NAMED_MAX: usize = 2;

/// A number with its thousands apart and so many decimals.
pub(super) fn number(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    let whole = whole.parse().map_or_else(|_| whole.to_owned(), grouped);
    let zero = text.bytes().all(|b| matches!(b, b'0' | b'.'));
    let sign = if value < 0.0 && !zero { "−" } else { "" };
    let point = if part.is_empty() { "" } else { "." };
    format!("{sign}{whole}{point}{part}")
}

/// A bound of a target or a sum of a formula: as short as it is.
pub(super) fn short(value: f64) -> String {
    let text = format!("{:.4}", value.abs());
    let decimals = text.trim_end_matches('0').split('.').nth(1).map_or(0, str::len);
    number(value, decimals)
}

/// A share in per cent, whole, never rounded up to 100.
pub(super) fn share(value: f64) -> String {
    let whole = (value * 100.0 + 1e-9).floor();
    format!("{}%", number(whole, 0))
}

/// Whether a unit of measure is written right behind the number.
fn is_tight(unit: &str) -> bool {
    matches!(unit, "%" | "‰")
}

impl View<'_> {
    /// An indicator of the catalogue.
    pub(super) fn indicator(&self, code: &str) -> Option<&Indicator> {
        indicator(&self.catalogue, code)
    }

    /// An indicator's name.
    pub(super) fn indicator_name<'c>(&'c self, code: &'c str) -> &'c str {
        self.indicator(code).map_or(code, |model| model.name.get(self.lang))
    }

    /// The value of an indicator with the decimals of the catalogue.
    pub(super) fn indicator_number(&self, code: &str, value: f64) -> String {
        number(value, self.indicator(code).map_or(1, |model| usize::from(model.decimals)))
    }

    /// A number with its unit of measure.
    pub(super) fn with_unit(&self, number: &str, unit: &str) -> String {
        let unit = self.unit_text(unit);
        if is_tight(unit) { format!("{number}{unit}") } else { format!("{number} {unit}") }
    }

    /// The name of a unit or network.
    pub(super) fn place_name(&self, code: &str) -> String {
        let org = &self.organisation;
        let day = self.map_day().unwrap_or(self.today);
        if let Some(unit) = org.unit(code) {
            return org.name_on(unit, day, self.lang).to_owned();
        }
        org.network(code).map_or(code, |n| &org.network_info(n).name).to_owned()
    }

    fn list(&self, names: impl Iterator<Item = String>) -> String {
        names.collect::<Vec<_>>().join(self.tr("、", ", "))
    }

    /// For whom a figure waits, and until when.
    fn waits(&self, waiting: &[WaitingFor]) -> String {
        let named = waiting.iter().take(WAITING_NAMED_MAX).map(|w| {
            let (unit, form, due) =
                (self.place_name(&w.unit), self.form_name(&w.form), moment(&w.due));
            match self.lang {
                Lang::Zh => format!("{unit}{form}（{due} 截止）"),
                Lang::En => format!("{form} of {unit} (due {due})"),
            }
        });
        let named = self.list(named);
        match (self.lang, waiting.len()) {
            (Lang::Zh, n) if n > WAITING_NAMED_MAX => format!("等待 {n} 份报表，如{named}"),
            (Lang::Zh, _) => format!("等待{named}"),
            (Lang::En, n) if n > WAITING_NAMED_MAX => {
                format!("waits for {n} reports, among them {named}")
            }
            (Lang::En, _) => format!("waits for {named}"),
        }
    }

    fn kinds(&self, codes: &[SharedText]) -> String {
        self.list(codes.iter().map(|code| self.kind_name(code).to_owned()))
    }

    /// Why an indicator has no value; nothing if it has one.
    pub(super) fn indicator_reason(&self, code: &str, figure: &IndicatorFigure) -> Option<String> {
        let state = figure.state.text(self.lang);
        let colon = self.tr("：", ": ");
        let why = match figure.state {
            State::Reported => return None,
            State::Waiting if !figure.waiting_for().is_empty() => self.waits(figure.waiting_for()),
            State::Waiting | State::Missing if !figure.absent().is_empty() => format!(
                "{}{}",
                self.kinds(figure.absent()),
                self.tr(
                    "全部未报，缺一类机构不计算",
                    " all unreported: no value without a whole kind"
                )
            ),
            State::Waiting => self.tr("尚未到期", "not due yet").to_owned(),
            State::Missing => format!(
                "{} {} {} {}",
                self.tr("应有", "of"),
                grouped(figure.coverage.expected),
                self.tr("组机构期，可用", "facility-periods usable:"),
                grouped(figure.coverage.matched)
            ),
            State::NotApplicable if figure.has_flag("denominator_zero") => {
                self.tr("分母为零", "nothing stands below the line").to_owned()
            }
            State::NotApplicable if figure.has_flag("too_large") => {
                self.tr("数值过大，无法计算", "the numbers are too large").to_owned()
            }
            State::NotApplicable if figure.coverage.expected > 0 => self
                .tr(
                    "应报此项的机构均答“不适用”",
                    "whoever is asked for it answered \"not applicable\"",
                )
                .to_owned(),
            State::NotApplicable => {
                self.tr("本范围内没有应报此项的机构", "nobody here is asked for it").to_owned()
            }
            State::TooFine => self
                .tr(
                    "组成它的报表统计期更长，请选更长的统计期",
                    "its reports are for longer periods: choose a longer one",
                )
                .to_owned(),
            State::NotShownHere => self.levels(code),
            State::NotAdditive => self
                .tr(
                    "各机构的数不能相加，请看单个机构",
                    "values of facilities must not be added: look at one facility",
                )
                .to_owned(),
            State::Withheld => self.tr("小数隐藏", "a small number").to_owned(),
        };
        Some(format!("{state}{colon}{why}"))
    }

    /// At which levels an indicator is shown.
    fn levels(&self, code: &str) -> String {
        let name = |level: &Level| match level {
            Level::Facility => self.tr("机构", "facility").to_owned(),
            Level::Unit(kind) => self.catalogue.kinds[kind.at()].name.get(self.lang).to_owned(),
            Level::Network(kind) => {
                self.catalogue.network_kinds[kind.at()].name.get(self.lang).to_owned()
            }
        };
        let levels = self.indicator(code).map(|model| model.levels.as_slice()).unwrap_or_default();
        format!(
            "{}{}",
            self.tr("只在以下层级显示：", "only for "),
            self.list(levels.iter().map(name))
        )
    }

    /// Why an element has no value; nothing if it has one.
    pub(super) fn element_reason(&self, figure: &ElementFigure) -> Option<String> {
        let why = match figure.state {
            State::Reported => return None,
            State::Missing => self.tr("已过期限，无人上报", "overdue, nobody has reported"),
            State::NotApplicable if figure.not_applicable > 0 => self.tr(
                "应报此项的机构均答“不适用”",
                "whoever is asked for it answered \"not applicable\"",
            ),
            State::NotApplicable => self.tr("本期无应报机构", "nobody is asked for it"),
            State::Waiting => self.tr("尚未到期", "not due yet"),
            State::NotAdditive => self.tr("各机构的数不能相加", "of several facilities"),
            State::TooFine => self.tr("只有更长统计期的报表", "only longer periods are reported"),
            State::NotShownHere => self.tr("请看其他层级", "look at other levels"),
            State::Withheld => self.tr("小数隐藏", "a small number"),
        };
        Some(format!("{}{}{why}", figure.state.text(self.lang), self.tr("：", ": ")))
    }

    /// A target in words: `≥ 65%`.
    pub(super) fn target(&self, figure: &IndicatorFigure) -> Option<String> {
        let unit = |value: f64| self.with_unit(&short(value), &figure.item.unit);
        Some(match (figure.low(), figure.high()) {
            (Some(low), Some(high)) => format!("{}–{}", short(low), unit(high)),
            (Some(low), None) => format!("≥ {}", unit(low)),
            (None, Some(high)) => format!("≤ {}", unit(high)),
            (None, None) => return figure.bound().map(unit),
        })
    }

    /// How far a target can be relied on.
    pub(super) fn target_status(&self, status: TargetStatus) -> &'static str {
        match status {
            TargetStatus::Official => self.tr("正式", "official"),
            TargetStatus::Seed => self.tr("文件", "from a document"),
            TargetStatus::Draft => self.tr("征求意见稿", "draft for comment"),
            TargetStatus::Proposal => self.tr("建议值", "proposed"),
            TargetStatus::Own => self.tr("自定", "own"),
        }
    }

    /// Which way is better, as a word.
    pub(super) fn direction(&self, direction: Direction) -> &'static str {
        match direction {
            Direction::Up => self.tr("越高越好", "higher is better"),
            Direction::Down => self.tr("越低越好", "lower is better"),
            Direction::Within => self.tr("区间内为好", "within a range"),
            Direction::Watch => self.tr("仅监测", "watched only"),
        }
    }

    /// What the reader should know of a value.
    pub(super) fn flags(&self, flags: &[SharedText]) -> Vec<String> {
        flags.iter().map(|flag| flag_text(&self.catalogue, flag, self.lang)).collect()
    }

    /// Whose figure it is where it is the area's and not the network's own.
    pub(super) fn area_note(&self, area: Option<&str>) -> Option<String> {
        let names = self.list(area?.split(';').map(|code| self.place_name(code)));
        Some(match self.lang {
            Lang::Zh => format!("辖区数（{names}）"),
            Lang::En => format!("figure of the area ({names})"),
        })
    }
}

fn indicator<'c>(catalogue: &'c Catalogue, code: &str) -> Option<&'c Indicator> {
    catalogue.indicator(code).map(|ix| &catalogue.indicators[ix.at()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_with_thousands_apart_and_a_true_minus() {
        let thin = grouped(1234);
        assert_eq!(number(1234.0, 1), format!("{thin}.0"));
        assert_eq!(number(-0.04, 1), "0.0");
        assert_eq!(number(-12.34, 1), "−12.3");
        assert_eq!(number(88.0, 0), "88");
        assert_eq!(short(0.91), "0.91");
        assert_eq!(short(65.0), "65");
        assert_eq!(short(-40.5), "−40.5");
        assert_eq!(share(0.9999), "99%");
        assert_eq!(share(1.0), "100%");
        assert_eq!(share(0.29), "29%");
    }
}
