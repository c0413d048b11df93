//! What can be wrong with a catalogue, for people: entry, line, reason, what to do, in both languages.

use std::fmt;

use super::Lang;

/// A fault in a catalogue file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogueError {
    /// The entry, for example `[[form]] vc_daily line 3`; empty for the file as a whole.
    pub entry: String,
    /// The line in the file, the first being 1, where it is known.
    pub line: Option<usize>,
    /// The character in the expression, the first being 1, where one is at fault.
    pub column: Option<usize>,
    /// What is wrong.
    pub problem: Problem,
}

impl CatalogueError {
    /// A stable code of what is wrong.
    pub fn code(&self) -> &'static str {
        self.problem.code()
    }

    /// Entry, line, reason and what to do, in one line.
    pub fn text(&self, lang: Lang) -> String {
        let mut place = String::new();
        if let Some(line) = self.line {
            place = match lang {
                Lang::Zh => format!("第{line}行 "),
                Lang::En => format!("line {line}: "),
            };
        }
        if !self.entry.is_empty() {
            place.push_str(&self.entry);
            if let Some(column) = self.column {
                place.push_str(&match lang {
                    Lang::Zh => format!(" 第{column}字"),
                    Lang::En => format!(", character {column}"),
                });
            }
            place.push_str(match lang {
                Lang::Zh => "：",
                Lang::En => ": ",
            });
        }
        format!("{place}{} [{}]", self.problem.text(lang), self.code())
    }
}

impl fmt::Display for CatalogueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(Lang::En))
    }
}

impl std::error::Error for CatalogueError {}

macro_rules! problems {
    ($($(#[$doc:meta])* $variant:ident { $($field:ident: $type:ty),* } = $code:literal, $zh:literal, $en:literal;)*) => {
        /// What is wrong with an entry.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Problem { $(
            $(#[$doc])*
            $variant { $(#[doc = concat!("The ", stringify!($field), " in question.")] $field: $type),* },
        )* }

        impl Problem {
            /// A stable code.
            pub fn code(&self) -> &'static str {
                match self { $(Problem::$variant { .. } => $code,)* }
            }

            /// The reason and what to do.
            pub fn text(&self, lang: Lang) -> String {
                match (self, lang) { $(
                    #[allow(unused_variables)]
                    (Problem::$variant { $($field),* }, Lang::Zh) => format!($zh),
                    #[allow(unused_variables)]
                    (Problem::$variant { $($field),* }, Lang::En) => format!($en),
                )* }
            }
        }
    };
}

problems! {
    /// The file is not UTF-8.
    NotUtf8 {} = "not_utf8",
        "文件不是UTF-8编码，请另存为UTF-8", "the file is not UTF-8: save it as UTF-8";
    /// The file is too large.
    TooLarge { limit: usize } = "too_large",
        "文件超过{limit}字节，请精简", "the file is larger than {limit} bytes: shorten it";
    /// Not TOML.
    Syntax { reason: String } = "syntax",
        "TOML语法错误：{reason}", "not TOML: {reason}";
    /// A key nobody reads.
    UnknownKey { key: String, known: String } = "unknown_key",
        "没有“{key}”这个键，请删除或改为：{known}", "unknown key {key:?}: delete it or use one of: {known}";
    /// A key that must be there is not.
    MissingKey { key: String } = "missing_key",
        "缺少“{key}”，请补上", "{key:?} is missing: add it";
    /// A key holds the wrong sort of thing.
    WrongType { key: String, found: &'static str, wanted: &'static str } = "wrong_type",
        "“{key}”的类型不对：是{found}，应为{wanted}", "{key:?} holds {found}: write {wanted}";
    /// A value is none of those allowed.
    NotAllowed { key: String, value: String, allowed: String } = "not_allowed",
        "“{key}”不能是“{value}”，可选：{allowed}", "{key:?} cannot be {value:?}: write one of: {allowed}";
    /// A code is not a code.
    BadCode { key: String, reason: String } = "bad_code",
        "“{key}”不是合法代码：{reason}", "{key:?} is not a code: {reason}";
    /// A code used twice.
    Duplicate { code: String } = "duplicate",
        "代码“{code}”重复，请改名或删除其一", "the code {code:?} is used twice: rename or delete one";
    /// A code that means something else in expressions or filters.
    ReservedWord { code: String } = "reserved_word",
        "“{code}”是表达式或筛选条件的保留字，请换一个代码", "{code:?} has a meaning in expressions or filters: choose another code";
    /// A code kept for an element to come.
    Reserved { code: String } = "reserved",
        "“{code}”在reserved中保留：请先从reserved中删除", "{code:?} is listed under reserved: take it out there first";
    /// A reference to nothing.
    Unknown { what: &'static str, code: String } = "unknown",
        "目录中没有{what}“{code}”，请先定义或改正拼写", "there is no {what} {code:?}: define it or correct the spelling";
    /// An empty list or text where one is needed.
    Empty { key: String } = "empty",
        "“{key}”为空，请填写", "{key:?} is empty: fill it in";
    /// A number out of range.
    OutOfRange { key: String, low: u64, high: u64 } = "out_of_range",
        "“{key}”应为{low}至{high}的整数", "{key:?} must be a whole number from {low} to {high}";
    /// Too many entries or characters.
    TooMany { what: &'static str, limit: usize } = "too_many",
        "{what}超过上限{limit}，请减少", "more than {limit} {what}: reduce them";
    /// A date that is none.
    BadDate { key: String, reason: String } = "bad_date",
        "“{key}”不是日期：{reason}", "{key:?} is not a date: {reason}";
    /// An end not after its beginning.
    DatesReversed { from: String, to: String } = "dates_reversed",
        "to（{to}）必须晚于from（{from}）：to是不再有效的第一天", "to ({to}) must be later than from ({from}): it is the first day no longer in force";
    /// A span of time that is none.
    BadDuration { key: String, value: String } = "bad_duration",
        "“{key}”不能是“{value}”，请写如3d、12h、90m", "{key:?} cannot be {value:?}: write for example 3d, 12h or 90m";
    /// A time of day that is none.
    BadTime { key: String, value: String } = "bad_time",
        "“{key}”不能是“{value}”，请写如10:00", "{key:?} cannot be {value:?}: write for example 10:00";
    /// A time zone nobody knows.
    BadTimeZone { value: String } = "bad_time_zone",
        "没有时区“{value}”，请写IANA名称，如Asia/Shanghai", "there is no time zone {value:?}: write an IANA name such as Asia/Shanghai";
    /// `carry_months` without `latest`, or the reverse.
    CarryMonths {} = "carry_months",
        "carry_months与over_time = \"latest\"必须同时出现", "carry_months belongs to over_time = \"latest\", and only there";
    /// An element that is part of itself.
    PartOfCycle { cycle: String } = "part_of_cycle",
        "part_of成环：{cycle}，请断开", "part_of runs in a circle: {cycle}; break it";
    /// An element that is part of one of another sort.
    PartOfMismatch { whole: String } = "part_of_mismatch",
        "与part_of所指“{whole}”的单位、范围或时间汇总方式不同", "its unit, scope or over_time differs from that of {whole:?}, which it is part of";
    /// A flag set where it has no meaning.
    DaysNotDaily {} = "days_not_daily",
        "days只用于日报（period_type = \"day\"），请删除", "days is for daily forms (period_type = \"day\") only: delete it";
    /// A form of kinds that report nothing.
    KindNotReporting { kind: String } = "kind_not_reporting",
        "“{kind}”类单位不填报表：只有facility和desk类填报", "units of kind {kind:?} report nothing: only classes facility and desk do";
    /// A form of facilities and desks at once.
    MixedClasses {} = "mixed_classes",
        "一张报表不能同时由机构和县级岗填报，请拆成两张", "a form is for facilities or for desks, not for both: make two forms";
    /// An area's element on a facility's form, or the reverse.
    WrongScope { element: String, scope: &'static str, class: &'static str } = "wrong_scope",
        "数据元“{element}”的scope是{scope}，不能放在{class}类单位的报表上", "the element {element:?} is of scope {scope} and cannot stand on a form of class {class}";
    /// An element twice on a form.
    RepeatedLine { element: String } = "repeated_line",
        "数据元“{element}”在本报表中重复，请删除其一", "the element {element:?} stands twice on this form: delete one";
    /// An element asked of one kind by two forms at once.
    TwoHomes { element: String, kind: String, other: String } = "two_homes",
        "数据元“{element}”已由报表“{other}”向“{kind}”收集：同一机构一个数据元只能在一张报表，请用asked_of或日期分开", "the element {element:?} is asked of {kind:?} by the form {other:?} too: one element has one home; part them by asked_of or dates";
    /// Dates outside the form's.
    OutsideForm { element: String } = "outside_form",
        "数据元“{element}”的日期与报表的日期不相交，永远不会收集", "the dates of the line {element:?} never meet the form's: it would never be asked";
    /// A filter that lets nobody through.
    AdmitsNone { filter: String } = "admits_none",
        "筛选条件“{filter}”在此处不选中任何单位，请改正", "the filter {filter:?} admits no unit here: correct it";
    /// A filter key twice.
    RepeatedFilterKey { key: String } = "repeated_filter_key",
        "筛选条件中“{key}”重复：同一项的多个取值用|分隔", "{key:?} stands twice in the filter: join its choices by |";
    /// A role without its network kind, or a kind or attribute with one.
    RoleShape { value: String } = "role_shape",
        "“{value}”写法不对：角色须写成 角色@网络类型，其他不带@", "{value:?}: a role is written role@network_kind, anything else without @";
    /// An expression or filter that does not parse.
    Expression { text: String, zh: String, en: String } = "expression",
        "表达式“{text}”：{zh}", "the expression {text:?}: {en}";
    /// A number where a condition belongs.
    NeedsCondition { key: String } = "needs_condition",
        "“{key}”应为条件（含比较，如 a <= b）", "{key:?} must be a condition: compare something, as in a <= b";
    /// A condition where a number belongs.
    NeedsNumber { key: String } = "needs_number",
        "“{key}”应为数值，而不是条件", "{key:?} must be a number, not a condition";
    /// A function with no meaning here.
    FunctionNotHere { function: String, place: &'static str } = "function_not_here",
        "函数{function}()在此处（{place}）没有意义", "the function {function}() has no meaning here ({place})";
    /// A filter on a single report.
    FilterNotHere { term: String } = "filter_not_here",
        "“{term}”：单张报表的规则不能带筛选条件", "{term:?}: a rule about one facility takes no filter";
    /// An element a rule's form does not ask.
    NotOnForm { element: String, form: String } = "not_on_form",
        "报表“{form}”没有数据元“{element}”：请改forms，或用scope = \"history\"跨报表核对", "the form {form:?} does not ask {element:?}: change forms, or use scope = \"history\" to compare forms";
    /// A rule without a condition.
    NoParts {} = "no_parts",
        "规则没有条件：请写when或parts", "the rule has no condition: write when or parts";
    /// A condition given twice over.
    WhenAndParts {} = "when_and_parts",
        "when与parts只能写其一", "write when or parts, not both";
    /// A cross-site rule without its network kind, or the reverse.
    NetworkKind {} = "network_kind",
        "scope = \"cross_site\"的规则须写network_kind，其他规则不得写", "a rule of scope cross_site names a network_kind, any other does not";
    /// An element that must not be added, added.
    NotAdditive { element: String } = "not_additive",
        "数据元“{element}”不可跨机构相加，只能用于share或仅在facility级显示", "the element {element:?} must not be added over facilities: use it in a share, or show the indicator at facility level only";
    /// An expression with nothing counted.
    NoTerms { key: String } = "no_terms",
        "“{key}”没有用到任何数据元", "{key:?} uses no element";
    /// A key of another sort of indicator.
    KeyNotForKind { key: String, kind: String } = "key_not_for_kind",
        "“{kind}”类指标不用“{key}”，请删除", "an indicator of kind {kind:?} has no {key:?}: delete it";
    /// `cumulative` without a beginning.
    CumulativeFrom {} = "cumulative_from",
        "使用cumulative()的定义须写from：从哪一天起累计", "a definition with cumulative() needs from: the day it counts from";
    /// Definitions out of order.
    DefinitionOrder { version: String } = "definition_order",
        "定义“{version}”的from须晚于前一个；只有第一个可以不写from", "the definition {version:?} must begin after the one before it; only the first may leave from out";
    /// Units of different classes in one share.
    ShareClasses {} = "share_classes",
        "of须限定kind，且均为同一大类（facility或administrative）", "of must name kinds, all facilities or all administrative";
    /// A level that is none.
    UnknownLevel { value: String } = "unknown_level",
        "“{value}”不是层级：请写facility、行政类型或网络类型的代码", "{value:?} is no level: write facility, an administrative kind or a network kind";
}
