//! The coded reasons of the wire: why the centre refused an entry, or holds it back for now.
//!
//! *Refused*: decidable for ever from the bytes and what the agent was granted. *Parked*: something is not
//! known here now; judged again on every change. Reasons of the agent's own checks are in `input`.

use serde::{Deserialize, Serialize};

use crate::report::coded;

coded! {
    /// Why an entry can never be counted.
    Refusal {
        /// The entry does not have the shape its form prescribes.
        Malformed = "malformed", "报表结构错误，请重新录入", "the entry is malformed: enter the report again";
        /// The facility number is outside the context, so the agent was never enrolled for it.
        NotInScope = "not_in_scope", "本终端未获准代该机构填报", "this agent is not enrolled for the facility: ask the county desk to assign it";
        /// The form number is not in the catalogue.
        UnknownForm = "unknown_form", "目录中没有该报表", "the catalogue has no such form";
        /// The period is of another type than the form's.
        WrongPeriodType = "wrong_period_type", "统计期类型与报表不符", "the period is of the wrong type for the form";
        /// A value above the element's maximum.
        AboveMaximum = "above_maximum", "数值超过上限", "a value is above the element's maximum: check for a slip or a unit of ten thousand";
        /// An answer to an element the form does not ask of this facility.
        NotAsked = "not_asked", "该机构不填报此数据元", "an element is answered that is not asked of this facility";
        /// The number was used before with other content: two machines share one identity.
        SeqReused = "seq_reused", "编号重复：两台电脑共用一个身份", "the number was used before with other content: two machines share one identity";
        /// The agent has been revoked.
        Revoked = "revoked", "本终端已被注销", "this agent has been revoked";
    }
}

coded! {
    /// Why an entry waits at the centre.
    ParkReason {
        /// The facility is not in the registry.
        UnknownFacility = "unknown_facility", "登记册中尚无该机构", "the facility is not in the registry yet";
        /// The facility's registration begins after the period.
        NotYetRegistered = "not_yet_registered", "该日期机构尚未登记", "the facility is not registered for that date yet";
        /// The facility was closed on that date.
        FacilityClosed = "facility_closed", "该日期机构已关闭", "the facility is closed on that date";
        /// The facility is only planned.
        FacilityPlanned = "facility_planned", "机构为规划状态", "the facility is only planned";
        /// The form is not asked of the facility's kind on that date.
        FormNotForKind = "form_not_for_kind", "该类机构不填此报表", "the form is not asked of this kind of facility on that date";
        /// The period has not begun by the centre's clock.
        FuturePeriod = "future_period", "统计期尚未开始", "the period has not begun yet";
        /// The catalogue version is not known here.
        UnknownCatalogue = "unknown_catalogue", "尚无该版本目录", "the catalogue version is not known here yet";
    }
}
