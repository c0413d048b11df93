//! What can be asked, and why a question is refused.

use banyan_shared::catalogue::{Catalogue, KindIx, Lang, NetworkKindIx};
use banyan_shared::ids::Millis;
use banyan_shared::organisation::Candidate;
use banyan_shared::period::{Date, PeriodType, Span};

/// On which day's map facilities are placed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Membership {
    /// On each period's own.
    #[default]
    AsItWas,
    /// On today's.
    Today,
    /// On that of a day.
    On(Date),
}

impl std::str::FromStr for Membership {
    type Err = QueryError;
    fn from_str(text: &str) -> Result<Membership, QueryError> {
        match text {
            "as_it_was" => Ok(Membership::AsItWas),
            "today" => Ok(Membership::Today),
            _ => text
                .parse()
                .map(Membership::On)
                .map_err(|_| QueryError::Membership { text: text.to_owned() }),
        }
    }
}

/// A question for figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryRequest {
    /// A unit or network, by code or unique name.
    pub place: String,
    /// The period or range.
    pub period: String,
    /// The dimensions of the rows, as on the command line; empty for one row.
    pub by: Vec<String>,
    /// The kind of network meant by the dimensions `network` and `role`.
    pub network: Option<String>,
    /// The elements; empty for all of which anything is expected or given.
    pub elements: Vec<String>,
    /// The indicators; empty for all that are shown at the row's level and have anything to say. Naming only
    /// elements leaves indicators out, and the other way round.
    pub indicators: Vec<String>,
    /// On which day's map.
    pub membership: Membership,
    /// As known at this moment; none = now.
    pub as_of: Option<Millis>,
    /// Whether every key carries its path and every figure its name.
    pub names: bool,
}

/// A question about completeness.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompletenessRequest {
    /// A unit or network, by code or unique name.
    pub place: String,
    /// The period or range.
    pub period: String,
    /// Only this form.
    pub form: Option<String>,
    /// The dimensions of the rows.
    pub by: Vec<String>,
    /// The kind of network meant by the dimensions `network` and `role`.
    pub network: Option<String>,
    /// On which day's map.
    pub membership: Membership,
    /// As known at this moment; none = now.
    pub as_of: Option<Millis>,
}

/// A dimension that divides units into sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UnitDim {
    /// What lies directly below the unit asked for.
    Children,
    /// Each facility.
    Facility,
    /// The places of an administrative kind.
    Kind(KindIx),
}

/// The dimensions of a question, resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Dims {
    /// By units.
    pub unit: Option<UnitDim>,
    /// By kind of facility.
    pub kind: bool,
    /// By role.
    pub role: bool,
    /// By network.
    pub network: bool,
    /// The kind of network meant.
    pub network_kind: Option<NetworkKindIx>,
    /// By time.
    pub period: Option<PeriodType>,
}

impl Dims {
    /// Whether the rows are sets of units, not only stretches of time.
    pub fn divides_units(&self) -> bool {
        self.unit.is_some() || self.kind || self.role || self.network
    }
}

/// Why a question is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryError {
    /// No single unit or network is meant.
    Place {
        /// What was asked for.
        text: String,
        /// What it may have meant; empty if nothing does.
        candidates: Vec<Candidate>,
    },
    /// The span is longer than a question may be about.
    SpanTooLong {
        /// The span.
        span: Span,
        /// The most days.
        limit: i32,
    },
    /// The rows would be about too many stretches of time.
    TooManyPieces {
        /// The span.
        span: Span,
        /// The dimension.
        dim: &'static str,
        /// The most stretches.
        limit: usize,
    },
    /// The unit is not in force on any day of the period, or not on the day whose map is asked for.
    UnitNotInForce {
        /// Its code and name.
        place: String,
        /// The days on which it is.
        days: String,
        /// What was asked for.
        when: String,
    },
    /// The network is not in force then.
    NetworkNotInForce {
        /// Its code and name.
        place: String,
        /// The days on which it is.
        days: String,
        /// What was asked for.
        when: String,
    },
    /// The period is not one.
    Period {
        /// Why.
        reason: banyan_shared::period::PeriodError,
    },
    /// A dimension that does not exist.
    Dim {
        /// What was asked for.
        text: String,
        /// The dimensions there are.
        known: Vec<String>,
    },
    /// Two dimensions of one sort.
    TwoDims {
        /// The first.
        one: String,
        /// The second.
        two: String,
    },
    /// The span holds no whole period of the dimension.
    DimTooCoarse {
        /// The type of period asked for.
        dim: &'static str,
        /// The span.
        span: Span,
    },
    /// Too many rows would come.
    TooManyRows {
        /// The limit.
        limit: usize,
    },
    /// More reports would have to be looked at one by one than a question may be about.
    TooManyReports {
        /// The limit.
        limit: usize,
    },
    /// Too many figures would come: rows times items.
    TooManyFigures {
        /// The limit.
        limit: usize,
    },
    /// The kind of network is needed, or not known.
    NetworkKind {
        /// What was asked for, if anything.
        text: Option<String>,
        /// The kinds there are.
        known: Vec<String>,
    },
    /// The catalogue has no such element, form or indicator.
    Unknown {
        /// `element`, `form`, `indicator`, `rule` or `scope`.
        what: &'static str,
        /// What was asked for.
        text: String,
        /// Codes that look like it.
        similar: Vec<String>,
    },
    /// A year-to-date figure over 1 January.
    AcrossNewYear {
        /// The element.
        element: String,
        /// The span.
        span: Span,
    },
    /// The membership is neither `as_it_was` nor `today` nor a date.
    Membership {
        /// What was asked for.
        text: String,
    },
    /// The form is for periods of another type.
    WrongPeriodType {
        /// The form.
        form: String,
        /// Its period type.
        wants: &'static str,
        /// What was asked for.
        text: String,
    },
    /// Reports are a facility's or desk's.
    NotAReporter {
        /// What was asked for.
        place: String,
    },
}

impl QueryError {
    /// A stable code.
    pub fn code(&self) -> &'static str {
        match self {
            QueryError::Place { candidates, .. } if candidates.is_empty() => "unknown_place",
            QueryError::Place { .. } => "ambiguous_place",
            QueryError::SpanTooLong { .. } => "span_too_long",
            QueryError::TooManyPieces { .. } => "too_many_rows",
            QueryError::UnitNotInForce { .. } => "unit_not_in_force",
            QueryError::NetworkNotInForce { .. } => "network_not_in_force",
            QueryError::Period { .. } => "bad_period",
            QueryError::Dim { .. } => "unknown_dimension",
            QueryError::TwoDims { .. } => "two_dimensions",
            QueryError::DimTooCoarse { .. } => "dimension_too_coarse",
            QueryError::TooManyRows { .. } => "too_many_rows",
            QueryError::TooManyReports { .. } => "too_many_reports",
            QueryError::TooManyFigures { .. } => "too_many_figures",
            QueryError::NetworkKind { .. } => "network_kind",
            QueryError::Unknown { .. } => "unknown_code",
            QueryError::AcrossNewYear { .. } => "across_new_year",
            QueryError::Membership { .. } => "bad_membership",
            QueryError::WrongPeriodType { .. } => "wrong_period_type",
            QueryError::NotAReporter { .. } => "not_a_reporter",
        }
    }

    /// The reason and what to do.
    pub fn text(&self, lang: Lang) -> String {
        let zh = lang == Lang::Zh;
        let list = |items: &[String]| items.join(if zh { "、" } else { ", " });
        match self {
            QueryError::Place { text, candidates } if candidates.is_empty() => {
                if zh {
                    format!("没有名称或代码为“{text}”的机构、地区或网络")
                } else {
                    format!("no unit or network has the code or name {text:?}")
                }
            }
            QueryError::Place { text, candidates } => {
                let mut out = if zh {
                    format!("“{text}”不能唯一确定，请改用代码：")
                } else {
                    format!("{text:?} does not name one thing; give a code:")
                };
                for c in candidates {
                    out.push_str(&format!("\n  {}  {}", c.code, c.path.join(" › ")));
                }
                out
            }
            QueryError::SpanTooLong { span, limit } => {
                if zh {
                    format!("{span} 太长：一次最多查询 {limit} 天，请分段查询")
                } else {
                    format!("{span} is too long: ask for at most {limit} days at once")
                }
            }
            QueryError::TooManyPieces { span, dim, limit } => {
                if zh {
                    format!(
                        "{span} 按 {dim} 划分超过 {limit} 段：请缩短时间范围，或用更长的统计期划分"
                    )
                } else {
                    format!(
                        "{span} has more than {limit} rows by {dim}: ask for a shorter time, or divide it by a \
                         longer period"
                    )
                }
            }
            QueryError::UnitNotInForce { place, days, when }
            | QueryError::NetworkNotInForce { place, days, when } => {
                if zh {
                    format!("{place} 在 {when} 不存在；其有效日期：{days}")
                } else {
                    format!("{place} is not in force in {when}; it is in force {days}")
                }
            }
            QueryError::Period { reason } => reason.text(lang),
            QueryError::Dim { text, known } => {
                if zh {
                    format!("没有“{text}”这个维度；可用：{}", list(known))
                } else {
                    format!("there is no dimension {text:?}; there are {}", list(known))
                }
            }
            QueryError::TwoDims { one, two } => {
                if zh {
                    format!("维度“{one}”和“{two}”不能同时使用，请只留一个")
                } else {
                    format!("the dimensions {one:?} and {two:?} exclude each other: keep one")
                }
            }
            QueryError::DimTooCoarse { dim, span } => {
                if zh {
                    format!("{span} 中没有一个完整的 {dim}，请放宽区间或用更细的维度")
                } else {
                    format!(
                        "{span} holds no whole {dim}: ask for a longer span or a finer dimension"
                    )
                }
            }
            QueryError::TooManyRows { limit } => {
                if zh {
                    format!("结果超过 {limit} 行，请缩小范围或减少维度")
                } else {
                    format!(
                        "more than {limit} rows: narrow the place, the period or the dimensions"
                    )
                }
            }
            QueryError::TooManyReports { limit } => {
                if zh {
                    format!("报表超过 {limit} 份，请缩小范围、缩短时间，或用 --form 指定一种报表")
                } else {
                    format!(
                        "more than {limit} reports: narrow the place or the period, or name a --form"
                    )
                }
            }
            QueryError::TooManyFigures { limit } => {
                if zh {
                    format!(
                        "结果超过 {limit} 个数：请用 element、indicator 指明所要的数据元和指标，或缩小地区、统计期，或减少维度"
                    )
                } else {
                    format!(
                        "more than {limit} figures: name the elements and indicators wanted (element, indicator), or narrow the place, the period or the dimensions"
                    )
                }
            }
            QueryError::NetworkKind { text: None, known } => {
                if zh {
                    format!("请用 --network 指明网络类型：{}", list(known))
                } else {
                    format!("say with --network which kind of network: {}", list(known))
                }
            }
            QueryError::NetworkKind { text: Some(text), known } => {
                if zh {
                    format!("没有“{text}”这类网络；可用：{}", list(known))
                } else {
                    format!("there is no kind of network {text:?}; there are {}", list(known))
                }
            }
            QueryError::Unknown { what, text, similar } => {
                let thing = match *what {
                    "element" => "数据元",
                    "form" => "报表",
                    "rule" => "审核规则",
                    "scope" => "规则范围",
                    _ => "指标",
                };
                let hint = match (similar.is_empty(), zh) {
                    (true, _) => String::new(),
                    (false, true) => format!("；是否为：{}", list(similar)),
                    (false, false) => format!("; did you mean {}?", list(similar)),
                };
                if zh {
                    format!("目录中没有{thing}“{text}”{hint}")
                } else {
                    format!("the catalogue has no {what} {text:?}{hint}")
                }
            }
            QueryError::AcrossNewYear { element, span } => {
                if zh {
                    format!("{element} 是本年累计数，不能跨越 1 月 1 日（{span}）；请按年分别查询")
                } else {
                    format!(
                        "{element} is a year-to-date figure and cannot cross 1 January ({span}): ask year by year"
                    )
                }
            }
            QueryError::Membership { text } => {
                if zh {
                    format!("“{text}”不是地图日期：as_it_was、today 或日期")
                } else {
                    format!("{text:?} is no map: write as_it_was, today or a date")
                }
            }
            QueryError::WrongPeriodType { form, wants, text } => {
                if zh {
                    format!("报表 {form} 的统计期类型为 {wants}，“{text}”不符")
                } else {
                    format!("form {form} is for periods of type {wants}; {text:?} is none")
                }
            }
            QueryError::NotAReporter { place } => {
                if zh {
                    format!("{place} 不是填报机构，请给出机构代码")
                } else {
                    format!("{place} sends no reports: name a facility or desk")
                }
            }
        }
    }
}

impl std::fmt::Display for QueryError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text(Lang::En))
    }
}
impl std::error::Error for QueryError {}

/// Reads the dimensions, each given alone or joined by commas.
pub(super) fn dims(
    catalogue: &Catalogue,
    by: &[String],
    network: Option<&str>,
) -> Result<Dims, QueryError> {
    let known_networks =
        || catalogue.network_kinds.iter().map(|kind| kind.code.to_string()).collect::<Vec<_>>();
    let mut dims = Dims::default();
    if let Some(text) = network {
        let kind = catalogue.network_kind(text).ok_or_else(|| QueryError::NetworkKind {
            text: Some(text.to_owned()),
            known: known_networks(),
        })?;
        dims.network_kind = Some(kind);
    }
    let (mut unit_text, mut period_text) = (String::new(), String::new());
    let mut unit = |dims: &mut Dims, text: &str, dim: UnitDim| match dims.unit {
        Some(_) => Err(QueryError::TwoDims { one: unit_text.clone(), two: text.to_owned() }),
        None => {
            dims.unit = Some(dim);
            text.clone_into(&mut unit_text);
            Ok(())
        }
    };
    for text in by.iter().flat_map(|text| text.split(',')).map(str::trim).filter(|t| !t.is_empty())
    {
        match text {
            "children" => unit(&mut dims, text, UnitDim::Children)?,
            "facility" => unit(&mut dims, text, UnitDim::Facility)?,
            "kind" => dims.kind = true,
            "role" => dims.role = true,
            "network" => dims.network = true,
            _ => {
                if let Ok(kind) = text.parse::<PeriodType>() {
                    if dims.period.is_some() {
                        return Err(QueryError::TwoDims { one: period_text, two: text.to_owned() });
                    }
                    dims.period = Some(kind);
                    text.clone_into(&mut period_text);
                    continue;
                }
                let administrative = |kind: &KindIx| {
                    catalogue.kinds[kind.at()].class
                        == banyan_shared::catalogue::Class::Administrative
                };
                match catalogue.kind(text).filter(administrative) {
                    Some(kind) => unit(&mut dims, text, UnitDim::Kind(kind))?,
                    None => {
                        let mut known: Vec<String> =
                            ["children", "facility", "kind", "role", "network"]
                                .map(String::from)
                                .into();
                        let kinds = (0u16..).map(KindIx).take(catalogue.kinds.len());
                        known.extend(
                            kinds
                                .filter(administrative)
                                .map(|k| catalogue.kinds[k.at()].code.to_string()),
                        );
                        known.extend(PeriodType::ALL.map(|kind| kind.name().to_owned()));
                        return Err(QueryError::Dim { text: text.to_owned(), known });
                    }
                }
            }
        }
    }
    Ok(dims)
}

/// The codes of `all` that look like `text`: those that contain it, or share its first word.
pub(crate) fn similar<'a>(text: &str, all: impl Iterator<Item = &'a str>) -> Vec<String> {
    const SHOWN: usize = 5;
    let head = text.split('_').next().unwrap_or(text);
    let mut found: Vec<(u8, &str)> = all
        .filter_map(|code| {
            let rank = if code.contains(text) || text.contains(code) {
                0
            } else if !head.is_empty() && code.split('_').any(|word| word == head) {
                1
            } else {
                return None;
            };
            Some((rank, code))
        })
        .collect();
    found.sort_unstable();
    found.into_iter().take(SHOWN).map(|(_, code)| code.to_owned()).collect()
}
