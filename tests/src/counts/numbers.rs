//! The numbers of one site, day by day and month by month.

use banyan_shared::catalogue::{Facts, Form};
use banyan_shared::organisation::UnitIx;
use banyan_shared::period::{Date, Period, PeriodType};
use banyan_shared::report::Value;
use rand::Rng;
use rand::rngs::StdRng;

use super::Area;

/// What was drawn for a report.
pub(crate) struct Drawn {
    pub(crate) values: Vec<(usize, Value)>,
    pub(crate) closed: bool,
}

/// A site's size and habits, and what lasts from one report to the next.
pub(crate) struct Site {
    day: Date,
    village: bool,
    hospital: bool,
    /// Visits on an ordinary working day.
    visits: f64,
    /// Beds; none at centres without.
    beds: Option<u64>,
    inpatients: u64,
    market: i32,
    closed_on_sundays: bool,
    doctors: u64,
    types_ytd: u64,
}

fn chance(random: &mut StdRng, probability: f64) -> bool {
    random.random_bool(probability.clamp(0.0, 1.0))
}

/// A number around `mean`, as counts of independent events are.
fn count(random: &mut StdRng, mean: f64) -> u64 {
    if mean <= 0.0 {
        return 0;
    }
    if mean < 30.0 {
        let limit = (-mean).exp();
        let (mut product, mut n) = (random.random::<f64>(), 0);
        while product > limit {
            product *= random.random::<f64>();
            n += 1;
        }
        return n;
    }
    // Twelve uniform numbers less six are nearly normal, and the same on every machine.
    let normal = (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0;
    (mean + normal * mean.sqrt()).round().max(0.0) as u64
}

/// How many of `whole` have something that `share` of all have.
fn part(random: &mut StdRng, whole: u64, share: f64) -> u64 {
    if whole > 200 {
        return count(random, whole as f64 * share).min(whole);
    }
    (0..whole).filter(|_| chance(random, share)).count() as u64
}

/// By day of the week, Monday first.
const WEEK: [f64; 7] = [1.25, 1.05, 1.0, 1.0, 1.1, 0.8, 0.55];

impl Site {
    pub(crate) fn new(area: &Area<'_>, unit: UnitIx, market: i32, random: &mut StdRng) -> Site {
        let kind = area.kind(unit).to_owned();
        let (visits, beds) = match kind.as_str() {
            "village_clinic" => match random.random_range(0..10) {
                0..4 => (random.random_range(0.2..1.5), None),
                4..8 => (random.random_range(1.5..6.0), None),
                _ => (random.random_range(6.0..18.0), None),
            },
            "township_health_centre" => {
                (random.random_range(25.0..110.0), Some(random.random_range(15..80)))
            }
            "community_health_centre" => {
                let beds = random.random_ratio(3, 5).then(|| random.random_range(10..40));
                (random.random_range(40.0..180.0), beds)
            }
            "county_hospital" => {
                (random.random_range(500.0..1400.0), Some(random.random_range(250..700)))
            }
            "maternal_child_hospital" => {
                (random.random_range(200.0..500.0), Some(random.random_range(80..200)))
            }
            _ => (random.random_range(1500.0..3500.0), Some(random.random_range(800..1800))),
        };
        let day = area.months.last().map_or(Date::MIN, |month| month.last_day());
        Site {
            day,
            village: kind == "village_clinic",
            hospital: !matches!(
                kind.as_str(),
                "village_clinic" | "township_health_centre" | "community_health_centre"
            ),
            visits,
            beds,
            inpatients: beds.map_or(0, |beds: u64| beds * 6 / 10),
            market,
            closed_on_sundays: random.random_ratio(1, 3),
            doctors: (visits / 20.0).ceil() as u64 + 1,
            types_ytd: beds.unwrap_or(0) * 2,
        }
    }

    /// A day on which the unit's kind is looked up.
    pub(crate) fn day(&self) -> Date {
        self.day
    }

    #[allow(clippy::too_many_arguments)]
    pub(crate) fn report(
        &mut self,
        area: &Area<'_>,
        form: &Form,
        period: Period,
        facts: &Facts,
        day: Date,
        holiday: bool,
        random: &mut StdRng,
    ) -> Drawn {
        let closed = self.village
            && form.period_type == PeriodType::Day
            && (self.closed_on_sundays && day.weekday() == 6
                || holiday && chance(random, 0.6)
                || chance(random, 0.01));
        let drawn = self.draw(form, period, holiday, closed, random);
        let mut values = Vec::new();
        for (at, line) in form.lines.iter().enumerate() {
            if !line.asks(facts, day) {
                continue;
            }
            let code = area.catalogue.elements[line.element.at()].code.as_str();
            let value = match drawn.iter().find(|(name, _)| *name == code) {
                Some((_, value)) => *value,
                None => Value::Number(self.small(code, random)),
            };
            values.push((at, value));
        }
        if !closed && values.len() > 3 && chance(random, 0.02) {
            // The last question is left unanswered; it is in no rule.
            values.pop();
        }
        let closed = closed && values.iter().all(|(_, value)| *value == Value::Number(0));
        Drawn { values, closed }
    }

    fn small(&self, code: &str, random: &mut StdRng) -> u64 {
        let size = if self.hospital { self.visits / 200.0 } else { self.visits / 60.0 };
        match code {
            "ecg_device_working" | "img_centre_connected" => u64::from(chance(random, 0.7)),
            _ => count(random, size.min(8.0)),
        }
    }

    /// Element by element what the form may ask, so that parts stay below wholes.
    fn draw(
        &mut self,
        form: &Form,
        period: Period,
        holiday: bool,
        closed: bool,
        random: &mut StdRng,
    ) -> Vec<(&'static str, Value)> {
        let number = Value::Number;
        let bed =
            |n: u64| if self.beds.is_some() { Value::Number(n) } else { Value::NotApplicable };
        if form.period_type == PeriodType::Day {
            let date = period.first_day();
            let mut mean = self.visits * WEEK[usize::from(date.weekday().min(6))];
            if (date.days() - self.market).rem_euclid(5) == 0 {
                mean *= 1.6;
            }
            if holiday {
                mean *= 0.5;
            }
            let visits = if closed { 0 } else { count(random, mean) };
            let home = part(random, visits, if self.village { 0.12 } else { 0.02 });
            let tcm = part(random, visits, 0.22);
            if self.village {
                let followups = if closed || !chance(random, 0.3) { 0 } else { count(random, 3.0) };
                return vec![
                    ("open_days", number(u64::from(!closed))),
                    ("total_visits", number(visits)),
                    ("home_visits", number(home)),
                    ("tcm_visits", number(tcm)),
                    ("referrals_up_out", number(part(random, visits, 0.02))),
                    ("remote_requests_sent", number(part(random, visits, 0.015))),
                    ("chronic_followups", number(followups)),
                ];
            }
            let emergency = part(random, visits, 0.06);
            let admitted = self.admissions(1.0, random);
            let discharged = self.discharges(1.0, random);
            self.inpatients = self.inpatients + admitted - discharged;
            let bed = |n: u64| if self.beds.is_some() { number(n) } else { Value::NotApplicable };
            return vec![
                ("total_visits", number(visits)),
                ("outpatient_visits", number(visits - emergency)),
                ("emergency_visits", number(emergency)),
                ("home_visits", number(home)),
                ("tcm_visits", number(tcm)),
                ("admissions", bed(admitted)),
                ("discharges", bed(discharged)),
                ("inpatients_end", bed(self.inpatients)),
                ("referrals_up_out", number(part(random, visits, 0.015))),
                ("referrals_up_in", number(count(random, 0.4))),
                ("referrals_down_in", number(count(random, 0.3))),
                ("remote_requests_sent", number(count(random, 1.2))),
                ("chronic_followups", number(count(random, 6.0))),
            ];
        }
        let days = f64::from(period.day_count());
        let open = self.beds.unwrap_or(0) * u64::from(period.day_count());
        let occupied = part(random, open, 0.72);
        let prescriptions = count(random, self.visits * days * 0.8);
        let managed = count(random, self.visits * 12.0);
        let diabetics = count(random, self.visits * 4.0);
        let population = count(random, self.visits * 300.0) + 500;
        let eligible = count(random, self.visits / 4.0);
        let accepted = part(random, eligible, 0.7);
        let posted = part(random, 3, 0.4);
        let mut drawn = vec![
            ("prescriptions", number(prescriptions)),
            ("beds_actual", bed(self.beds.unwrap_or(0))),
            ("bed_days_open", bed(open)),
            ("bed_days_occupied", bed(occupied)),
            ("bed_days_discharged", bed(occupied)),
            ("recog_eligible", number(eligible)),
            ("recog_accepted", number(accepted)),
            ("recog_repeated", number(eligible - accepted)),
            ("served_population", number(population)),
            ("fd_contracts_active", number(part(random, population, 0.4))),
            ("fd_service_visits", number(count(random, self.visits * 3.0))),
            ("htn_managed", number(managed)),
            ("htn_standardised", number(part(random, managed, 0.7))),
            ("dm_managed", number(diabetics)),
            ("dm_standardised", number(part(random, diabetics, 0.65))),
            ("staff_village_doctors", number(1 + u64::from(self.visits > 8.0))),
            ("staff_licensed_doctors", number(if self.village { 0 } else { self.doctors })),
            ("staff_nurses", number(if self.village { 0 } else { self.doctors * 2 })),
            ("posted_in_staff", number(posted)),
            ("posted_in_days", number(posted * 20)),
            ("disease_types_ytd", number(self.types_ytd)),
        ];
        self.types_ytd += 3 + count(random, 4.0);
        if self.hospital {
            drawn.extend(self.hospital_month(days, open, random));
        }
        drawn
    }

    fn admissions(&self, days: f64, random: &mut StdRng) -> u64 {
        let Some(beds) = self.beds else { return 0 };
        let free = (beds + beds / 5).saturating_sub(self.inpatients);
        count(random, beds as f64 * 0.09 * days).min(if days > 1.0 { u64::MAX } else { free })
    }

    fn discharges(&self, days: f64, random: &mut StdRng) -> u64 {
        let Some(beds) = self.beds else { return 0 };
        count(random, beds as f64 * 0.09 * days).min(if days > 1.0 {
            u64::MAX
        } else {
            self.inpatients
        })
    }

    fn hospital_month(
        &mut self,
        days: f64,
        open: u64,
        random: &mut StdRng,
    ) -> Vec<(&'static str, Value)> {
        let number = Value::Number;
        let visits = count(random, self.visits * days * 0.9);
        let emergency = part(random, visits, 0.08);
        let discharges = self.discharges(days, random).min(open / 2);
        // As many come as go, and a few beds either way.
        let beds = self.beds.unwrap_or(0);
        let stay = part(random, beds, 0.75);
        let admissions = (discharges + stay).saturating_sub(self.inpatients);
        let discharged = self.inpatients + admissions - stay;
        self.inpatients = stay;
        let operations = part(random, discharged, 0.22);
        let (third, fourth) = (operations / 5, operations / 20);
        let cases = part(random, discharged, 0.93);
        let up = count(random, self.visits / 25.0);
        let trips = count(random, 1.5);
        let mut drawn = vec![
            ("total_visits", number(visits)),
            ("outpatient_visits", number(visits - emergency)),
            ("emergency_visits", number(emergency)),
            ("tcm_visits", number(part(random, visits, 0.15))),
            ("admissions", number(admissions)),
            ("discharges", number(discharged)),
            ("inpatients_end", number(stay)),
            ("bed_days_discharged", number(discharged * 7)),
            ("operations_total", number(operations)),
            ("operations_l3", number(third)),
            ("operations_l4", number(fourth)),
            ("drg_cases", number(cases)),
            ("drg_weight_milli", number(cases * random.random_range(750..1100))),
            ("referrals_up_out", number(up)),
            ("referrals_up_in", number(count(random, self.visits / 10.0))),
            ("referrals_down_out", number(count(random, self.visits / 18.0))),
            ("referrals_out_of_county", number(part(random, up, 0.5))),
            ("mobile_clinic_trips", number(trips)),
            ("mobile_clinic_visits", number(trips * 35)),
        ];
        let services: [(&str, &str, f64); 7] = [
            ("remote_consult_emerg", "remote_consult_emerg_1h", 3.0),
            ("remote_consult_routine", "remote_consult_routine_6h", 25.0),
            ("remote_ecg_emerg", "remote_ecg_emerg_30m", 12.0),
            ("remote_ecg_routine", "remote_ecg_routine_sd", 160.0),
            ("remote_img_emerg", "remote_img_emerg_30m", 8.0),
            ("remote_img_routine", "remote_img_routine_sd", 220.0),
            ("remote_path", "remote_path_24h", 15.0),
        ];
        for (all, in_time, mean) in services {
            let cases = count(random, mean);
            drawn.extend([(all, number(cases)), (in_time, number(part(random, cases, 0.9)))]);
        }
        let abroad = count(random, 800.0);
        drawn.extend([
            ("in_county_resident_visits", number(count(random, 160_000.0))),
            ("out_county_visits", number(count(random, 14_000.0))),
            ("in_county_resident_discharges", number(count(random, 7_000.0))),
            ("out_county_discharges", number(abroad)),
            ("out_province_discharges", number(part(random, abroad, 0.2))),
        ]);
        drawn
    }
}
