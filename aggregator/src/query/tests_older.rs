//! Questions about months that are not in memory: each is read as often as there are kinds of things to fold from it,
//! however many facilities are asked about.

use std::collections::HashMap;
use std::sync::Mutex;

use banyan_shared::period::Period;

use super::fixture::{self, World};
use super::sheet::CHUNK;
use super::*;
use crate::cube::{Month, Older};

/// A form's place in the cube, and a month.
type Key = (usize, Period);

/// Older months as they lie in a file, and how often each was read. As narrow as can be: nothing is kept but the
/// month read last.
#[derive(Debug, Default)]
struct Narrow {
    months: HashMap<Key, Vec<u8>>,
    last: Mutex<Option<(Key, Arc<Month>)>>,
    reads: Mutex<HashMap<Key, usize>>,
}

impl Older for Narrow {
    fn rewritten(&self) -> u64 {
        0
    }

    fn month(&self, form: usize, month: Period) -> Arc<Month> {
        let key = (form, month);
        let mut last = self.last.lock().unwrap();
        if let Some((_, month)) = last.as_ref().filter(|(of, _)| *of == key) {
            return month.clone();
        }
        *self.reads.lock().unwrap().entry(key).or_default() += 1;
        let month = Arc::new(Month::decode(&self.months[&key]).unwrap());
        *last = Some((key, month.clone()));
        month
    }
}

#[test]
fn an_older_month_is_read_a_few_times_however_many_facilities_it_has() {
    let mut w = World::new();
    // Three chunks of them and some.
    let clinics: Vec<String> = (0..3 * CHUNK).map(|n| format!("X{n:04}")).collect();
    let rows = clinics.iter().map(|code| format!("{code},甲,clinic,T1,,,,,\n"));
    let units = fixture::UNITS.to_owned() + &rows.collect::<String>();
    w.organisation = fixture::build(&w.catalogue, &units, "");
    w.cube = Cube::new(&w.catalogue);
    reserve(&mut w.cube, &w.catalogue, &w.organisation);
    let months = ["2025-10", "2025-11", "2025-12", "2026-01"];
    for month in months {
        for (at, code) in clinics.iter().enumerate() {
            let (visits, day) = ((at % 7).to_string(), format!("{month}-05"));
            w.put(code, "daily", &day, &[&visits, "1"], ("2026-02-01", 9));
        }
    }
    let question = QueryRequest {
        place: "P".to_owned(),
        period: "2025-10..2026-01".to_owned(),
        ..QueryRequest::default()
    };
    let now = w.at("2026-02-20", 12);
    let here = w.engine().query(&question, now).unwrap();

    let mut older = Narrow::default();
    for (number, form) in w.cube.forms().iter().enumerate() {
        for month in form.months() {
            older.months.insert((number, month), Month::encode(form.month(month)));
        }
    }
    let older = Arc::new(older);
    w.cube.set_older(older.clone());
    for (number, month) in older.months.keys() {
        w.cube.put_aside(*number, *month);
    }
    let plans = Plans::default();
    let aside = Engine { plans: &plans, ..w.engine() }.query(&question, now).unwrap();
    assert_eq!(aside, here);
    let reads = older.reads.lock().unwrap();
    assert_eq!(reads.len(), months.len());
    // Its lines, its reports and what is marked in them; not once for each chunk.
    assert!(reads.values().all(|reads| *reads <= 3), "{reads:?}");
}
