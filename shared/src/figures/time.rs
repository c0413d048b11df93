//! F3: due times, what "on time" means, and the parts of completeness.

use serde::{Deserialize, Serialize};

use crate::catalogue::{Catalogue, Form};
use crate::ids::Millis;
use crate::period::{Date, Period};
use crate::report::coded;

/// How far ahead a working day is looked for before the due day is left where it is.
const WORKING_DAY_SEARCH_DAYS: i32 = 31;

/// When a report is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Deadline {
    /// The due time shown to people.
    pub due: Millis,
    /// The last moment at which it still counts as on time: due and grace.
    pub late_after: Millis,
}

/// The moment `period` ends: the midnight after its last day, in the catalogue's time zone.
pub fn ended_at(catalogue: &Catalogue, period: Period) -> Millis {
    catalogue.midnight(period.last_day().plus(1))
}

/// When `form` is due for `period`: by the form's rule, on a working day where it says so
/// (`working(day)` in the unit's calendar), unless an extension sets another time.
pub fn deadline(
    catalogue: &Catalogue,
    form: &Form,
    period: Period,
    working: impl Fn(Date) -> bool,
    extension: Option<Millis>,
) -> Deadline {
    let due = extension.unwrap_or_else(|| {
        let day = due_day(form, period, working);
        catalogue.due_at(day, form.due.hour, form.due.minute)
    });
    Deadline { due, late_after: due.plus(i64::from(form.grace_minutes) * 60_000) }
}

/// The day on which `form` is due for `period`, by the form's rule alone. A calendar without a working day
/// within a month leaves the day where it is.
pub fn due_day(form: &Form, period: Period, working: impl Fn(Date) -> bool) -> Date {
    let day = period.last_day().plus(i32::from(form.due.days));
    if !form.due.next_working_day {
        return day;
    }
    (0..WORKING_DAY_SEARCH_DAYS).map(|n| day.plus(n)).find(|day| working(*day)).unwrap_or(day)
}

/// The receipt since which a report has been answered without a break. `steps` are the moments at which
/// anything was received for it, in order, each with whether the report was answered from then on.
pub fn arrived(steps: impl IntoIterator<Item = (Millis, bool)>) -> Option<Millis> {
    steps
        .into_iter()
        .fold(None, |since, (at, answered)| if answered { since.or(Some(at)) } else { None })
}

/// Where a report owed stands in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Timing {
    /// Answered, in time.
    OnTime,
    /// Answered, after the last moment.
    Late,
    /// Not answered, still in time.
    NotYetDue,
    /// Not answered, and the last moment has passed.
    Missing,
}

/// Where a report owed stands at `now`; `arrived` is none while it is not answered.
pub fn judge(arrived: Option<Millis>, late_after: Millis, now: Millis) -> Timing {
    match arrived {
        Some(at) if at <= late_after => Timing::OnTime,
        Some(_) => Timing::Late,
        None if now <= late_after => Timing::NotYetDue,
        None => Timing::Missing,
    }
}

coded! {
    /// Why a report is missing: the first cause that fits, in this order.
    MissingWhy {
        /// Returned for correction and not entered again.
        Returned = "returned", "已退回待更正", "returned for correction";
        /// Sent, and refused here.
        Refused = "refused", "被拒收", "refused";
        /// Sent, and parked here.
        Parked = "parked", "暂存待判", "parked";
        /// No agent is enrolled for the facility.
        NotEnrolled = "not_enrolled", "未注册终端", "not enrolled";
        /// The site's beacon says that reports wait there.
        BacklogKnown = "backlog_known", "终端有积压", "waiting at the site";
        /// The site has not been heard of lately.
        Silent = "silent", "终端失联", "site silent";
        /// Nobody has entered it, as far as is known.
        NotEntered = "not_entered", "未录入", "not entered";
    }
}

/// How many causes of missing there are.
pub const MISSING_CAUSES: usize = MissingWhy::ALL.len();

/// What is known of a missing report and its site. Beacons are no history: for a moment in the past
/// `backlog` and `silent` are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MissingFacts {
    /// The report stands returned.
    pub returned: bool,
    /// A version of it was refused.
    pub refused: bool,
    /// A version of it is parked.
    pub parked: bool,
    /// An agent is enrolled for the facility.
    pub enrolled: bool,
    /// The site says that reports wait there.
    pub backlog: Option<bool>,
    /// The site is silent.
    pub silent: Option<bool>,
}

/// The first cause that fits.
pub fn missing_why(facts: &MissingFacts) -> MissingWhy {
    if facts.returned {
        MissingWhy::Returned
    } else if facts.refused {
        MissingWhy::Refused
    } else if facts.parked {
        MissingWhy::Parked
    } else if !facts.enrolled {
        MissingWhy::NotEnrolled
    } else if facts.backlog == Some(true) {
        MissingWhy::BacklogKnown
    } else if facts.silent == Some(true) {
        MissingWhy::Silent
    } else {
        MissingWhy::NotEntered
    }
}

/// One report owed, judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Where it stands in time.
    pub timing: Timing,
    /// Received, a required element unanswered.
    pub incomplete: bool,
    /// Received, entered on the facility's behalf.
    pub proxy: bool,
    /// Received, corrected since it was first signed off or locked.
    pub corrected: bool,
    /// Late, entered at the site in time.
    pub late_by_network: bool,
    /// The cause, if it is missing.
    pub why: MissingWhy,
}

/// Counts of reports owed. `expected = on_time + late + not_yet_due + missing`,
/// `received = on_time + late`, and the causes add up to missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completeness {
    /// Answered in time.
    pub on_time: u64,
    /// Answered late.
    pub late: u64,
    /// Of late: entered in time, held up on the way.
    pub late_by_network: u64,
    /// Not answered, still in time.
    pub not_yet_due: u64,
    /// Of received: a required element unanswered.
    pub incomplete: u64,
    /// Of received: entered on the facility's behalf.
    pub proxy: u64,
    /// Of received: corrected after it was signed off.
    pub corrected_after_signoff: u64,
    /// Reports nobody owed: in the totals, in neither expected nor received.
    pub unexpected: u64,
    /// Missing by cause, in the order of [`MissingWhy::ALL`].
    pub missing_by: [u64; MISSING_CAUSES],
}

impl Completeness {
    /// Counts one report owed.
    pub fn add(&mut self, one: Standing) {
        let received = match one.timing {
            Timing::OnTime => {
                self.on_time += 1;
                true
            }
            Timing::Late => {
                self.late += 1;
                self.late_by_network += u64::from(one.late_by_network);
                true
            }
            Timing::NotYetDue => {
                self.not_yet_due += 1;
                false
            }
            Timing::Missing => {
                self.missing_by[one.why as usize] += 1;
                false
            }
        };
        self.incomplete += u64::from(received && one.incomplete);
        self.proxy += u64::from(received && one.proxy);
        self.corrected_after_signoff += u64::from(received && one.corrected);
    }

    /// Counts everything `other` counts as well.
    pub fn merge(&mut self, other: &Completeness) {
        self.on_time += other.on_time;
        self.late += other.late;
        self.late_by_network += other.late_by_network;
        self.not_yet_due += other.not_yet_due;
        self.incomplete += other.incomplete;
        self.proxy += other.proxy;
        self.corrected_after_signoff += other.corrected_after_signoff;
        self.unexpected += other.unexpected;
        for (mine, theirs) in self.missing_by.iter_mut().zip(other.missing_by) {
            *mine += theirs;
        }
    }

    /// Not answered, and too late.
    pub fn missing(&self) -> u64 {
        self.missing_by.iter().sum()
    }

    /// Answered.
    pub fn received(&self) -> u64 {
        self.on_time + self.late
    }

    /// Owed, for periods that have ended.
    pub fn expected(&self) -> u64 {
        self.received() + self.not_yet_due + self.missing()
    }

    /// Missing for one cause.
    pub fn missing_because(&self, why: MissingWhy) -> u64 {
        self.missing_by[why as usize]
    }

    /// Received of expected, in per cent; none when nothing is expected.
    pub fn reporting_rate(&self) -> Option<f64> {
        percent(self.received(), self.expected())
    }

    /// On time, late and missing of those whose time has passed or that are in, in per cent: adds to 100.
    pub fn timing_rates(&self) -> Option<[f64; 3]> {
        let whole = self.received() + self.missing();
        Some([
            percent(self.on_time, whole)?,
            percent(self.late, whole)?,
            percent(self.missing(), whole)?,
        ])
    }
}

fn percent(part: u64, whole: u64) -> Option<f64> {
    // Counts of reports stay far below 2^53, where f64 begins to round.
    (whole > 0).then(|| part as f64 * 100.0 / whole as f64)
}
