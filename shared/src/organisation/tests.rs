use super::*;

#[test]
fn days_are_half_open() {
    let date = |text: &str| text.parse::<Date>().unwrap();
    let days = |from: &str, to: &str| Days { from: from.parse().ok(), to: to.parse().ok() };
    let january = days("2026-01-01", "2026-02-01");
    assert!(january.has(date("2026-01-31")) && !january.has(date("2026-02-01")));
    assert!(!january.meets(days("2026-02-01", "")) && january.meets(days("", "")));
    let period: Period = "2026-02".parse().unwrap();
    assert_eq!(january.last_in(period), None);
    assert_eq!(days("2026-02-28", "").last_in(period), Some(date("2026-02-28")));
    assert_eq!(days("", "2026-02-10").last_in(period), Some(date("2026-02-09")));
}
